"""Sessions, links and what lies between them: the structures of the data path.

    client bytes -> Session.unread -> parse, route -> Link.out -> upstream
    upstream bytes -> frame -> Entry at Link.head -> Session.borrowed / Session.out -> client

A Session is one client connection, a Link one logical upstream connection. Both are plain C
records: they are followed by pointer on the data path, and a session's record outlives its
client until the last reply that is still due to it has passed. Structures only: what is done with
them is in core/link and core/session.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from sidecar.core.protocol.commands cimport Command
from sidecar.core.memory cimport Buffer
from sidecar.core.protocol.reply cimport Framer
from sidecar.core.protocol.request cimport Limits, Scanner
from sidecar.core.stats cimport Stats

cdef enum Stall:
    """What the request at the head of a session's unread bytes waits for."""
    STALL_NONE = 0              # nothing
    STALL_LINK = 1              # its shared link, which is not up
    STALL_DEDICATED = 2         # a dedicated link, given back when the state that needs it is over
    STALL_ONCE = 3              # a dedicated link, closed afterwards
    STALL_PIN = 4               # a dedicated link for good
    STALL_SESSION_COMMAND = 5   # the shell: it is a session command, which the sidecar serves
    STALL_WAIT_COMMAND = 6      # the shell: it is WAIT or WAITAOF, for a link of its own
    STALL_PROTOCOL_ERROR = 7    # the shell: it is no request, and is answered; then the client goes
    STALL_HANG_UP = 8           # the shell: the client is closed without an answer
    STALL_ROOM = 9              # room: its link has too much unsent, or its client too much unread
    STALL_SHELL = 10            # the shell, which still works on the request before it
    STALL_HELD = 11             # the end of a hold (Core.holds)
    STALL_FILL = 12             # the near cache, which is reading the value
    STALL_REPLIES = 13          # the session's replies: they tell what is open on its own link
    STALL_HEAVY = 14            # a dedicated link if there is one: the session's replies are large
    STALL_LIMIT = 15            # its limits: it asks for too much (see guard/guard.pyx)

cdef enum:
    # Unread or unsent bytes at which a client with a link of its own, and that link, slow down.
    DEDICATED_PAUSE = 1048576

cdef enum:
    # What a session may have in flight on a shared link (see weight.pyx).
    NEW_SESSION_WINDOW = 16  # requests of a session whose replies are not known yet
    LARGEST_WINDOW = 1048576
    WINDOW_BYTES = 1048576  # of replies that are expected to be as large as the last large one
    LARGE_REPLY = 16384     # from here on a reply narrows the window,
    HEAVY_REPLY = 262144    # and from here on its session goes on with a link of its own,
    HEAVY_REPLIES = 64      # until so many replies in a row have been smaller

cdef enum Hold:
    # Core.holds, as bits: what waits (STALL_HELD) although its link may be up.
    HOLD_WRITES = 1         # what may change data: the present master is about to change
    HOLD_ALL = 2            # everything but what belongs to a transaction that is open: a pause

cdef enum Mode:
    MODE_SHARED = 0
    MODE_DEDICATED = 1
    MODE_PINNED = 2

cdef enum EntryFlag:
    ENTRY_READ = 1          # may be sent again
    ENTRY_IN_MULTI = 2      # part of a MULTI ... EXEC piece: all of it or nothing
    ENTRY_LAST = 4          # the EXEC or DISCARD that ends the piece
    ENTRY_UNCERTAIN = 8     # lost on the way: the typed error is its reply, in its turn
    ENTRY_AGAIN = 16        # the server said that it did not execute it: may be sent again
    ENTRY_ACK = 32          # the sidecar's own WAIT, for all writes before it
    ENTRY_NEEDS_ACK = 64    # its reply is withheld until replicas have acknowledged it
    ENTRY_SHORT = 128       # too few of them did, in time
    ENTRY_WRITES = 256      # it may change keys (it is no read)
    ENTRY_OPAQUE = 512      # its error replies may say anything
    ENTRY_LOCAL = 1024      # its reply is ready and lies in Link.local_replies: it only waits its turn
    ENTRY_STATE = 2048      # its reply may begin or end WATCH or MULTI (see transaction_state.pyx)
    ENTRY_ACK_LATER = 4096  # in a transaction, and to be acknowledged by replicas with its EXEC
    ENTRY_MAY_BE_HELD = 8192  # a read that the server may hold back like a write: PFCOUNT
    ENTRY_REFUSED = 16384   # it stands in for a request that was refused here (see refused.pyx)

cdef enum TransactionState:
    # Link.transaction: what the replies have told so far is open on the connection.
    STATE_WATCHING = 1
    STATE_IN_MULTI = 2      # the bit of ENTRY_IN_MULTI, so that both can be compared

cdef enum Tells:            # whether a reply may tell of changes to keys that are not named: fence.pyx
    TELLS_NOTHING = 0
    TELLS_UNLESS_NULL = 1
    TELLS_ALWAYS = 2

cdef enum:
    # Sets of keys, by hash, for which it is known whether a command is under way (see barrier.pyx).
    BUCKETS_OF_KEYS = 16384
    BARRIERS_ALL = 255

cdef struct Entry:
    Session* session        # NULL: nobody waits, the reply is dropped
    uint32_t size           # request bytes
    uint32_t read_at        # when it was read, microseconds, wraps
    uint32_t withheld_size  # bytes of its withheld reply (see replica_acks.pyx)
    uint16_t command
    uint16_t flags
    uint16_t bucket         # with one barrier: which; with several: how many
    uint8_t family
    uint8_t route
    uint8_t barriers        # barriers held until it is answered: 0, 1, several, BARRIERS_ALL
    uint8_t loose_epoch     # 1 or 2: it is counted in Barriers.loose[loose_epoch - 1]
    uint8_t tells           # Tells
    uint8_t record          # number of its record, plus one (see trace_records.pyx); 0: none

# What is under way past the near cache, by sets of keys (see barrier.pyx).
cdef struct Barrier:
    uint32_t pending        # commands under way
    uint32_t writing        # those of them that may write
    uint32_t begun          # commands since the start

cdef struct Barriers:
    uint8_t known[BUCKETS_OF_KEYS]  # keys of each set that the cache knows; 255: that or more
    Barrier sets[BUCKETS_OF_KEYS]
    uint32_t pending_all    # commands under way that mean all keys,
    uint32_t begun_all      # and since the start
    uint32_t drops_pending  # of those under way, the ones that drop every value if not refused;
    bint drop_all           # one of them has been answered: every value is to go, before any is served
    uint32_t loose[2]       # loose commands under way: of even epochs, of odd ones
    uint32_t epoch          # the present one; loose commands under way are of it or the one before
    uint64_t tracked_requests  # requests queued on tracked links since the start (see fence.pyx)
    uint64_t fence          # `tracked_requests` when a reply or message last told of changes
    bint fence_raised       # the fence has been raised since the cache last looked

cdef struct Core:
    Limits limits
    Stats* stats
    Session* dirty          # sessions that have something to send or to decide
    size_t request_buffer   # larger requests are streamed
    size_t link_pause       # a link with more than this unsent takes no more for now
    uint32_t new_session_window  # requests a new session may have in flight on a shared link (weight.pyx)
    size_t output_pause     # a session with more than this unread takes no more for now
    uint32_t now            # microseconds, wraps
    uint32_t seconds
    bint master_may_change  # the upstream's master may change: see link_demote
    bint interrupted        # commands cannot be passed on: there is no master now
    uint8_t holds           # Hold: what is kept back
    uint32_t hold_round     # goes up when a hold ends: what was held is decided on again
    uint64_t clock          # microseconds, does not wrap
    Barriers* barriers      # NULL: there is no near cache
    void* cache             # the Cache of store.pxd; NULL: there is none
    void* sketch            # the Sketch of sketch.pyx; NULL: hot keys are not looked for
    void* audit             # the Notes of audit_notes.pyx; NULL: nothing is recorded
    uint64_t key_hash       # of the command being dispatched: the hash of its only key,
    bint key_hashed         #   whether that is known yet,
    bint more_requests      #   and whether more requests of the client have come behind it
    uint32_t trace_skip     # commands up to and with the next one that is sampled
    uint32_t slow_from      # microseconds from which a command is slow
    void* tracer            # the Tracer of trace_records.pyx; NULL: nothing is recorded
    Command* commands       # of the command table, by number
    void* slots             # the Slots of slots.pxd; NULL: the upstream is no cluster
    void* scripts           # of a cluster: the Scripts of scripts.pxd; NULL: none are kept
    Link* fed               # links that have got requests since the shell last sent
    int acks                # replicas that must have a write before it is answered; 0: none
    const char* ack_request  # the WAIT that asks for it; borrowed from the shell
    size_t ack_request_len
    Command* ack_command

cdef struct Session:
    Core* core
    void* owner             # the shell's connection; NULL once the client has gone
    Link* link
    Session* next_dirty     # of Core.dirty
    Scanner scan            # of the request at the head of `unread`
    Buffer unread           # bytes from the client that are not dealt with yet
    Buffer out              # replies that are not sent yet
    const char* borrowed    # reply bytes still in the receive buffer
    size_t borrowed_len
    size_t piece_at         # of a piece being queued: where MULTI begins in the bytes read,
    size_t piece_out        #   the size of link.out before it,
    uint32_t piece_first    #   and the number of its entry
    uint32_t outstanding    # replies due
    void* guard             # the Guard of guard.pxd: what restricts it; NULL: nothing does
    uint32_t window         # requests it may have in flight on a shared link
    uint32_t heavy          # small replies until it may leave its own link; 0: it is not heavy
    uint32_t active_at      # core.seconds when the client last sent or got something
    uint8_t mode
    uint8_t stall
    uint8_t traced          # Traced (trace_records.pxd): what its commands are recorded for
    uint8_t proto           # 2 or 3: the form in which it gets cached replies
    uint16_t space          # of the near cache; 0: none
    uint16_t tenant         # number of its (user, database)
    bint fresh              # it is never answered from the near cache: it asked for that
    bint bypass_next        # its next command goes past the near cache
    void* awaited           # a Value that is being read, or a Space: the session waits for it
    Session* next_waiting   # for the same
    uint32_t fill_waits     # times that its present read has waited for a value,
    uint8_t fill_asks       # and had values asked for
    uint64_t fence_seen     # Barriers.fence when it last sent something
    uint64_t fence_awaited  # awaits_proof: the fence whose proof it waits for
    uint32_t telling_replies  # replies due that may tell of changes
    bint awaits_proof       # `awaited` is a Space
    uint16_t proof_space    # whose proof has come that its next command waited for; 0: none
    void* branches          # of a cluster's client: the Branches of branches.pxd; NULL: it is none
    Session* trunk          # of a branch: the client's session
    Session* news           # its branches that have got something, by next_dirty
    uint32_t redirected     # of a cluster's client: its requests that have still to be sent again;
    int (*say_in_turn)(Session*, const char*, size_t) noexcept nogil  # gives it a reply of our own
    Buffer under_way        # of a cluster's client on a link of its own: a copy of its request,
    Buffer turned_back      #   and the answer that has sent that elsewhere; it is in `unread` again
    bint multi_unsent       # of a cluster's client: MULTI has been answered, and goes where the first key is
    bint dirty
    bint authenticated      # False: the server's limits before authentication hold
    bint in_multi           # these two: what is open on the server once it has accepted all that
    bint watching           # was queued. What is so in fact is told by Link.transaction
    bint discard_due        # with acks: DISCARD has been queued, and nothing may be until its reply
    bint kept               # dedicated: the link is its own for good, and replies are still matched
    bint rewrites_exec      # in MULTI: the shell changes something in the reply to EXEC
    uint64_t redirect_link  # its tracking is redirected: to the link with this id on the server,
    uint64_t redirect_client  #   which is that of the client with this number; 0: to none of ours
    bint streaming          # the head of a large request has been passed on, its rest has not
    bint discarding         # likewise, but it was refused: nothing of it is passed on
    bint input_broken       # pinned and past a protocol error: nothing more is passed on
    bint translates_ids     # pinned: it may know ids that only the sidecar understands
    bint reset_due          # pinned: RESET is under way
    bint replies_off        # requests may have no reply from here on (limited.pyx)
    bint must_close         # a reply is lost or broken: the client is to be closed
    bint cannot_leave       # for link_divert: it waits for replies to more than reads
    uint32_t held_in_round  # Core.hold_round when the command at the head was last held
    uint32_t waiting_since  # when the command at the head began to wait, microseconds, wraps
    uint32_t db             # what records of its commands tell: the database,
    uint64_t client_number  #   the client's number,
    uint64_t received_bytes  # bytes and requests of the client, and its latest command: CLIENT LIST
    uint64_t command_count  # tells them
    uint16_t last_command
    uint8_t trace_context[24]  #   trace id and span id of the application

cdef struct Link:
    Core* core
    void* owner
    Session* client         # of a dedicated link
    Entry* ring
    uint32_t mask           # ring size - 1
    uint32_t head           # oldest entry
    uint32_t tail           # one past the newest
    Buffer out              # request bytes; those before `sent` wait for their replies
    size_t sent             # bytes of `out` that have been given to the socket
    const char* borrowed    # request bytes still in the receive buffer (streamed requests)
    size_t borrowed_len
    Framer framer
    bint up                 # it has a connection that has been greeted
    const char* refusal     # while it is not up: the error that commands get. NULL: they wait.
    size_t refusal_len      #   Borrowed from the shell, which keeps it alive
    bint shared             # it is a shared link, and keeps requests until they are answered
    bint raw                # its client is pinned: replies pass without being matched
    bint retired            # it is held up and was replaced: its last replies are awaited
    bint cautious           # it replaces a held-up link: what the server may hold back, too, goes
                            #   down dedicated links
    bint partial            # the reply to the head entry has come, and been given out, in part;
    size_t partial_size     #   so many bytes of it,
    bint swallowing         #   or nothing of it, since it is too large for its client (guard.pyx)
    bint in_piece           # the head entry is in a piece of which some entries are answered
    bint tainted            # it has state of its client: it is closed after use
    uint8_t transaction     # TransactionState: what is open, as the replies tell
    uint32_t queued         # dedicated: commands that the server has queued since MULTI
    uint32_t undecided      # dedicated: entries with ENTRY_STATE whose reply has not come
    bint unframed           # raw: what comes is not framed any more (replication streams)
    bint reset_passed       # raw: the reply to RESET has passed
    bint reset_marked       # raw: a mark behind RESET tells its end (reset_mark.pyx)
    char reply_start[16]    # the first bytes of a reply that comes in parts,
    int reply_start_len     #   and how many
    uint64_t received_bytes  # bytes, to notice silence (silence.pyx):
    uint64_t received_before  #   so many when it was last looked at,
    uint64_t quiet_since    #   since then (microseconds) it owes something and nothing has come
    uint32_t raw_requests_due  # raw: requests that have passed, without those that seem answered
    Buffer raw_sizes        #   and of those with a guard that have one reply each, the size (limited.pyx)
    Buffer error_line       # with Core.master_may_change: an error line that has come in part;
    bint error_line_taken   #   it has been taken up, and the bytes read lie in it
    bint demoted            # the server is not the master any more: nothing more is sent to it
    bint reply_split        # demoted: the reply being read has come in more than one part
    uint32_t judged_to      # demoted, or with acks: one past the last entry whose reply has come,
    size_t judged_size      #   and the request bytes of the entries before it
    Buffer withheld         # with acks: the replies withheld;
    size_t withheld_whole   #   so many bytes of them are whole replies
    Buffer local_replies    # replies made here, which wait for their turn (ENTRY_LOCAL)
    Buffer refusals         # errors for requests that were refused on this link (refused.pyx);
    uint64_t refusals_said  #   the number of the first one,
    uint64_t refusals_made  #   and of the next one that is made
    Buffer barrier_buckets  # of the entries with several barriers, in the order of the ring
    Buffer deferred_buckets  # buckets whose barriers end with the transaction
    bint unsealed           # with acks: writes have been queued behind the last WAIT
    bint records_unsent     # a command with a record waits to be sent
    Link* next_fed          # of Core.fed,
    bint fed                #   if it is in there
    bint piece_tells        # the reply to the end of the transaction tells of changes
    uint32_t server         # the shell's number of the server, for records
    int32_t shard           # the number of the cluster's shard that it leads to; -1: to none
    int32_t first_slot      # dedicated, of a cluster: that of the first key of what is open; -1: none yet

cdef inline bint entry_writes(const Entry* e) noexcept nogil:
    """Whether it may change keys."""
    return e.flags & ENTRY_WRITES != 0

cdef inline bint is_ready(const Entry* e) noexcept nogil:
    """Whether no reply of the server will come for it."""
    return e.flags & (ENTRY_UNCERTAIN | ENTRY_LOCAL) != 0

cdef inline Entry* link_unjudged(Link* l) noexcept nogil:
    """On a demoted link: the oldest entry without a reply whose request was sent whole, or NULL."""
    cdef uint32_t i = l.judged_to
    while i != l.tail and is_ready(l.ring + (i & l.mask)):
        i += 1
    if i == l.tail or l.judged_size + l.ring[i & l.mask].size > l.sent:
        return NULL
    l.judged_to = i
    return l.ring + (i & l.mask)

cdef inline bint link_demotion_over(Link* l) noexcept nogil:
    """Whether everything that was sent before the link was demoted has been judged.

    Of a request that was sent in part the rest will not follow, so no reply to it will come.
    """
    return l.demoted and link_unjudged(l) == NULL

cdef inline void link_took(Link* l, const Entry* e) noexcept nogil:
    """The head entry leaves the ring."""
    l.head += 1
    l.in_piece = e.flags & (ENTRY_IN_MULTI | ENTRY_LAST) == ENTRY_IN_MULTI

cdef inline void link_fed(Link* l) noexcept nogil:
    """It has got a request: have the shell send it before the current event is over."""
    if not l.fed:
        l.fed = True
        l.next_fed = l.core.fed
        l.core.fed = l

cdef inline size_t link_unsent(const Link* l) noexcept nogil:
    return l.out.end - l.out.start - l.sent

cdef inline uint32_t link_outstanding(const Link* l) noexcept nogil:
    return l.tail - l.head
