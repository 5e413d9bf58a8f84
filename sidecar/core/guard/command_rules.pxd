"""What a command policy allows (see command_rules.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from sidecar.core.protocol.commands cimport MAX_COMMANDS, SUBCOMMAND_MAX, Command, CommandTable
from sidecar.core.records cimport Session

cdef enum Verdict:
    ALLOWED = 0
    DENIED = 1              # the command, or this subcommand
    DENIED_KEY = 2
    BY_SUBCOMMAND = 3       # only in PolicyRules.commands, where this may be added:
    HAS_SUBCOMMANDS = 4

cdef struct Subcommand:
    uint16_t command
    uint8_t denied
    uint8_t name_len
    char name[SUBCOMMAND_MAX]

cdef struct Name:
    uint8_t n
    char text[256]

cdef struct Pattern:
    char* text
    size_t n

cdef struct Patterns:
    Pattern* all
    uint32_t count

cdef struct PolicyRules:
    uint8_t commands[MAX_COMMANDS]  # Verdict, by id; of row 0: of those that the table does not know
    Subcommand* subcommands
    uint32_t subcommands_len
    Name* names             # commands that the table does not know, and that are denied
    uint32_t names_len
    Patterns keys           # which no request may name,
    Patterns read_only      #   and which none may change

cdef class Policy:
    cdef PolicyRules rules
    cdef CommandTable table
    cdef void release(self) noexcept

cdef int rules_judge(const PolicyRules* r, Session* s, const Command* c, const char* p, size_t n,
                     bint whole) noexcept nogil
cdef size_t full_name(Session* s, bint with_subcommand, const char* p, size_t n, char* out,
                      size_t room) noexcept nogil
