/* Jobs that do nothing: `wakegate admin jobs ping` measures the queue with them. */
#include "workers/ping.h"

int ping_run(struct job *job)
{
    (void)job;
    return 0;
}
