/* An allocator that fails when it is told to. It is loaded before the C library's (LD_PRELOAD), for
 * tests only (tests/fuzz/failing_memory.py).
 *
 * Only allocations of the extension modules under test fail: who allocates is told by the address that
 * the call returns to. So Python itself, and the tests, have all the memory they want.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>
#include <string.h>

#define RANGES 256

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

static struct { char *begin, *end; } ranges[RANGES];
static int range_count;
static long before = -1;        /* allocations until one fails; negative: none will */
static long failures;           /* and how many fail then, one after the other */
static long failed;

static int note_module(struct dl_phdr_info *info, size_t size, void *part) {
    (void)size;
    if (strstr(info->dlpi_name, (const char *)part) == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && range_count < RANGES; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X))
            continue;
        ranges[range_count].begin = (char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        ranges[range_count].end = ranges[range_count].begin + info->dlpi_phdr[i].p_memsz;
        range_count++;
    }
    return 0;
}

/* After `allocations` more of the modules whose path has this part, `times` of them fail. Returns how many
 * modules there are. */
int failing_begin(const char *part, long allocations, long times) {
    range_count = 0;
    dl_iterate_phdr(note_module, (void *)part);
    failed = 0;
    failures = times;
    before = allocations;
    return range_count;
}

/* From now on none fails: how many did. */
long failing_end(void) {
    before = -1;
    return failed;
}

static int fails(const void *caller) {
    if (before < 0)
        return 0;
    for (int i = 0; i < range_count; i++) {
        if ((const char *)caller < ranges[i].begin || (const char *)caller >= ranges[i].end)
            continue;
        if (before > 0) {
            before--;
            return 0;
        }
        if (failed == failures)
            return 0;
        failed++;
        return 1;
    }
    return 0;
}

void *malloc(size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) {
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(block, size);
}
