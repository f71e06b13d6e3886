#ifndef WAKEGATE_TEST_UNIT_SUPPORT_UNTIL_H
#define WAKEGATE_TEST_UNIT_SUPPORT_UNTIL_H

#include "core/base/clock.h"
#include "core/run/fiber.h"

/* Waits in a fiber, for at most 30 seconds, until the condition holds. The look that decides is the last one: what is
 * looked at may change while it is. */
#define UNTIL(condition)                                                                                     \
    do {                                                                                                     \
        uint64_t until_ns_ = clock_in_ms(30000);                                                             \
        bool holds_ = (condition);                                                                           \
        while (!holds_ && clock_now_ns() < until_ns_) {                                                      \
            assert_int_equal(fiber_sleep_ms(2), 0);                                                          \
            holds_ = (condition);                                                                            \
        }                                                                                                    \
        assert_true(holds_);                                                                                 \
    } while (0)

#endif
