/* Preloaded into a program under test: getaddrinfo answers the names of the file that NAMES_FILE
 * tells, and leaves all others to the system. A line of the file is a name and its addresses; with
 * none the name does not exist. A word such as ~5 makes the answer take so many seconds. The file is
 * read at each question. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result) {
    resolver next = (resolver)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("NAMES_FILE");
    FILE *file = name && path ? fopen(path, "r") : NULL;
    char line[1024];
    struct addrinfo numeric = hints ? *hints : (struct addrinfo){0}, *last = NULL;
    int known = 0;
    if (!file)
        return next(name, service, hints, result);
    *result = NULL;
    numeric.ai_flags |= AI_NUMERICHOST;
    while (!known && fgets(line, sizeof line, file)) {
        char *rest, *word = strtok_r(line, " \n", &rest);
        if (!word || strcmp(word, name))
            continue;
        known = 1;
        while ((word = strtok_r(NULL, " \n", &rest))) {
            struct addrinfo *found;
            if (*word == '~') {
                sleep(atoi(word + 1));
                continue;
            }
            if (next(word, service, &numeric, &found))
                continue;
            if (last)
                last->ai_next = found;
            else
                *result = found;
            for (last = found; last->ai_next; last = last->ai_next)
                ;
        }
    }
    fclose(file);
    if (!known)
        return next(name, service, hints, result);
    return *result ? 0 : EAI_NONAME;
}
