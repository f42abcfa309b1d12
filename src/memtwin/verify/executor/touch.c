// SPDX-License-Identifier: GPL-2.0-or-later
/* Touching memory byte by byte, and the signals that come of it. */
#include "executor.h"
#include <signal.h>
#include <setjmp.h>

static sigjmp_buf fault_jump;
static char alt_stack[16384] __attribute__((aligned(4096)));

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	sh->sig = sig;
	sh->code = info->si_code;
	sh->at = (u64)info->si_addr;
	siglongjmp(fault_jump, 1);
}
static void end_run(void)
{
	if (sh->run_len && sh->runs++ < 64) {
		put(sh->runs > 1 ? ",[" : "[");
		put_int(sh->run_value);
		put(",");
		put_int(sh->run_len);
		put("]");
	}
	sh->run_len = 0;
}
/* Read (value < 0) or write one byte every stride: how many it came to before a signal, if one came. */
s64 touch(u64 addr, u64 len, const u64 stride, int value)
{
	sh->touched = sh->runs = sh->run_len = 0;
	if (value < 0)
		put(",\"vals\":[");
	if (!sigsetjmp(fault_jump, 0))
		for (u64 x = 0; x < len; x += stride, sh->touched++) {
			volatile unsigned char *p = (volatile unsigned char *)(addr + x);
			if (value >= 0) {
				*p = value;
				continue;
			}
			int seen = *p;
			if (seen != sh->run_value)
				end_run();
			sh->run_value = seen;
			sh->run_len++;
		}
	if (value < 0) {
		end_run();
		put("]");
	}
	return sh->touched;
}
void handle_faults(void)
{
	stack_t alt = {.ss_sp = alt_stack, .ss_size = sizeof alt_stack};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	sigaltstack(&alt, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}
