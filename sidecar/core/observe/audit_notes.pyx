# cython: language_level=3
"""Notes of commands that the audit stream is to record, taken where they are passed on.

Ordinary commands cost one test of a flag. The shell empties the notes right after each call that
may have taken some, before any connection can go: so a note holds its client by a plain pointer.
Of the arguments only the second word is kept, where it can be a subcommand; the shell decides
whether it may be shown.
"""
from libc.string cimport memcmp
from sidecar.core.protocol.commands cimport ROUTE_HELLO, lower
from sidecar.core.protocol.cursor cimport Cursor, cursor_next
from sidecar.core.protocol.request cimport arguments_of


cdef Note* add(Session* s, int kind, uint16_t command) noexcept nogil:
    cdef Notes* notes = <Notes*>s.core.audit
    cdef Note* note
    if s.owner == NULL:
        return NULL
    if notes.count == MOST_NOTES:
        notes.lost += 1
        return NULL
    note = notes.notes + notes.count
    notes.count += 1
    note.owner = s.owner
    note.kind = <uint8_t>kind
    note.command = command
    note.second_len = 0
    return note


cdef void audit_command(Session* s, const Command* c, const char* p, size_t n) noexcept nogil:
    """The request p[0:n] is passed on; it may be the beginning of a large one."""
    cdef Note* note
    cdef Cursor a
    cdef size_t i
    if s.core.audit == NULL:
        return
    if c.route == ROUTE_HELLO and s.scan.argc < 5:
        return                          # HELLO without credentials
    note = add(s, NOTE_COMMAND, c.id)
    if note == NULL or s.scan.argc < 2:
        return
    arguments_of(&a, p, n, &s.scan)
    if cursor_next(&a) and a.size <= SUBCOMMAND_MAX:
        for i in range(a.size):
            note.second[i] = lower(a.arg[i])
        note.second_len = <uint8_t>a.size


cdef void audit_reply(const Entry* e, const char* p, size_t n) noexcept nogil:
    """An error reply p[0:n] to this entry: was it refused for want of a permission?"""
    cdef Session* s = e.session
    if s == NULL or s.core.audit == NULL or n < 8 or not (<Notes*>s.core.audit).refusals:
        return
    if memcmp(p, b"-NOPERM ", 8) == 0:
        add(s, NOTE_NOPERM, e.command)
    elif memcmp(p, b"-NOAUTH ", 8) == 0:
        add(s, NOTE_NOAUTH, e.command)


cdef void audit_raw_reply(Session* s, const char* p, size_t n) noexcept nogil:
    """As `audit_reply`, on a pinned link: p[0:n] is the beginning of a reply, to a command that is
    not known."""
    if s == NULL or s.core.audit == NULL or n < 8 or not (<Notes*>s.core.audit).refusals:
        return
    if memcmp(p, b"-NOPERM ", 8) == 0:
        add(s, NOTE_NOPERM, 0)
    elif memcmp(p, b"-NOAUTH ", 8) == 0:
        add(s, NOTE_NOAUTH, 0)


cdef void audit_refused(Session* s, const Command* c) noexcept nogil:
    """A command policy has refused this command: noted as the server's refusals are."""
    if s.core.audit != NULL and (<Notes*>s.core.audit).refusals:
        add(s, NOTE_NOPERM, c.id)


cdef void audit_begin(Session* s) noexcept nogil:
    """A MULTI on a shared link: what follows may be taken back."""
    if s.core.audit != NULL:
        (<Notes*>s.core.audit).mark = (<Notes*>s.core.audit).count


cdef void audit_take_back(Session* s) noexcept nogil:
    """The MULTI is taken back: drop the notes since. All are of its commands, because one parse
    serves one session."""
    if s.core.audit != NULL:
        (<Notes*>s.core.audit).count = (<Notes*>s.core.audit).mark
