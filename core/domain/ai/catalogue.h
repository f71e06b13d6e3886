#ifndef CORE_DOMAIN_AI_CATALOGUE_H
#define CORE_DOMAIN_AI_CATALOGUE_H

#include "core/domain/ai/model.h"
#include "core/run/loop.h"

/*
 * All models and their providers, as one immutable snapshot for the process: what the program brings along, what the settings
 * name (OPENAI_API_KEY, ANTHROPIC_API_KEY) and the rows of tables provider, model and model_route, which stand in place of
 * others of the same name; rows "openai" and "anthropic" without a URL are where the settings say. Once a second it is looked whether the rows have changed, and then a new snapshot takes its place.
 * While PostgreSQL is away the last one stays.
 *
 * Without any provider but the sandbox, the models that the program knows are answered by it, for no price. As soon as there is
 * one, each goes to the provider that has its kind's name ("openai", "anthropic"), and is not served where there is none: to any other
 * it goes by routes alone.
 */

struct catalogue;

/* Makes the first snapshot, without rows, and begins to look at them. Once per process, with the vault open. */
void catalogue_open(struct loop *loop);
/* Waits until the rows were read once: 0, -ETIMEDOUT, -ECANCELED. */
int catalogue_wait(uint64_t deadline_ns) MUST_USE;
/* Looks no more. On a fiber of that loop; waits. Harmless when it was not opened. */
void catalogue_close(void);
/* Drops the snapshot, when no loop is left that asks for it. References that others hold stay good. */
void catalogue_clear(void);

/* The snapshot of this moment. From any thread; never NULL between open and clear. Models and providers live as long as it. */
struct catalogue *catalogue_ref(void) MUST_USE;
void catalogue_unref(struct catalogue *catalogue); /* NULL is fine */

/* Another snapshot, from the rows as they are at this moment; the caller's. For operators. Waits. */
int catalogue_read(struct catalogue **catalogue) MUST_USE;

/* NULL: there is none of that name that is served, or enabled. */
const struct model *catalogue_model(const struct catalogue *catalogue, struct str id);
const struct provider *catalogue_provider(const struct catalogue *catalogue, struct str name);
/* In order of their ids and names. */
size_t catalogue_model_count(const struct catalogue *catalogue);
const struct model *catalogue_model_at(const struct catalogue *catalogue, size_t index);
size_t catalogue_provider_count(const struct catalogue *catalogue);
const struct provider *catalogue_provider_at(const struct catalogue *catalogue, size_t index);

/* For operators: what is not enabled and what nobody serves, too. They are behind the others, from the count to the total. */
const struct model *catalogue_any_model(const struct catalogue *catalogue, struct str id);
const struct provider *catalogue_any_provider(const struct catalogue *catalogue, struct str name);
size_t catalogue_model_total(const struct catalogue *catalogue);
size_t catalogue_provider_total(const struct catalogue *catalogue);
/* Whether the program knows a model of this id by itself. */
bool catalogue_knows(struct str id);

#endif
