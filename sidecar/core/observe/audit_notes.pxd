"""Notes for the audit stream, and of what changes the server (see audit_notes.pyx)."""
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from sidecar.core.protocol.commands cimport SUBCOMMAND_MAX, Command
from sidecar.core.records cimport Entry, Session

cdef enum:
    # What fits into one read of 256 KiB, as "SAVE" and a line end; memory that is not used is not
    # taken. Only of what has waited here there may be more: it is counted (`lost`).
    MOST_NOTES = 65536

cdef enum NoteKind:
    NOTE_COMMAND = 0        # passed on
    NOTE_NOPERM = 1         # refused by the server
    NOTE_NOAUTH = 2

cdef struct Note:
    void* owner             # the shell's connection, which is alive: see audit_notes.pyx
    uint16_t command
    uint8_t kind
    uint8_t second_len
    char second[SUBCOMMAND_MAX]

cdef struct Notes:
    int count
    bint refusals           # whether refusals are noted as well
    int mark                # how many there were before an open MULTI
    uint64_t lost
    Note notes[MOST_NOTES]

cdef void audit_command(Session* s, const Command* c, const char* p, size_t n) noexcept nogil
cdef void audit_reply(const Entry* e, const char* p, size_t n) noexcept nogil
cdef void audit_raw_reply(Session* s, const char* p, size_t n) noexcept nogil
cdef void audit_refused(Session* s, const Command* c) noexcept nogil
cdef void audit_begin(Session* s) noexcept nogil
cdef void audit_take_back(Session* s) noexcept nogil
