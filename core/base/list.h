#ifndef CORE_BASE_LIST_H
#define CORE_BASE_LIST_H

#include "core/base/check.h"

#include <stdbool.h>
#include <stddef.h>

/* An intrusive circular doubly linked list. The head is a link too; an unlinked link points at itself. */
struct link {
    struct link *next;
    struct link *prev;
};

static inline void list_init(struct link *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool list_empty(const struct link *head)
{
    return head->next == head;
}

static inline void list_push_back(struct link *head, struct link *item)
{
    item->prev = head->prev;
    item->next = head;
    head->prev->next = item;
    head->prev = item;
}

static inline void list_push_front(struct link *head, struct link *item)
{
    list_push_back(head->next, item);
}

/* Takes the item out of whatever list it is in; harmless on one that is in none. */
static inline void list_remove(struct link *item)
{
    item->prev->next = item->next;
    item->next->prev = item->prev;
    list_init(item);
}

/* The first link, taken out, or NULL. */
static inline struct link *list_pop_front(struct link *head)
{
    struct link *first = head->next;
    if (first == head)
        return NULL;
    list_remove(first);
    return first;
}

#define LIST_ENTRY(pointer, type, member) CONTAINER_OF(pointer, type, member)

/* Walks a list; the item at hand may be removed. `item` and `after` are struct link pointers. */
#define LIST_EACH(head, item, after)                                                                         \
    for (struct link *item = (head)->next, *after = item->next; item != (head);                              \
         item = after, after = item->next)

#endif
