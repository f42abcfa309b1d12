// SPDX-License-Identifier: GPL-2.0-or-later
/* A script's lines, one by one, and their answers. */
#include "executor.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

void open_answer(int line, int slot, const char *op)
{
	to_out();
	put("{\"i\":");
	put_int(line);
	if (slot) {
		put(",\"proc\":\"");
		put(slot < 0 ? "*" : sh->proc[slot].name);
		put("\"");
	}
	put(",\"op\":\"");
	put(op);
	put("\"");
}
static void put_result(char kind, s64 ret)
{
	if (kind == 'A' && !(ret < 0 && ret >= -4095)) {
		put(",\"ret\":\"");
		put_address(ret);
		put("\"");
		return;
	}
	put_field("ret", kind == 'F' && ret >= 0 ? 0 : ret);
	if (ret >= 0 || ret < -4095)
		return;
	const char *name = errno_name(-ret);
	char number[16];
	snprintf(number, sizeof number, "E%d", (int)-ret);
	put(",\"err\":\"");
	put(name ? name : number);
	put("\"");
}
static void put_signal(void)
{
	static const char *const segv[] = {"SEGV_MAPERR", "SEGV_ACCERR", "SEGV_BNDERR", "SEGV_PKUERR"};
	static const char *const bus[] = {"BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"};
	int code = sh->code - 1, is_segv = sh->sig == SIGSEGV, known = code >= 0 && code < (is_segv ? 4 : 5);
	char number[16];
	snprintf(number, sizeof number, "%d", sh->code);
	put(is_segv ? ",\"sig\":\"SIGSEGV\",\"code\":\"" : ",\"sig\":\"SIGBUS\",\"code\":\"");
	put(sh->code == SI_KERNEL ? "SI_KERNEL" : !known ? number : is_segv ? segv[code] : bus[code]);
	put("\",\"at\":\"");
	put_address(sh->at);
	put("\"");
}
static void put_extra(void)
{
	memcpy(sh->out + sh->out_len, sh->extra, sh->extra_len);
	sh->out_len += sh->extra_len;
}
static void answer_error(const char *text)
{
	to_out();
	put("{\"i\":");
	put_int(sh->lines);
	put(",\"line\":\"");
	put_escaped(sh->line);
	put("\",\"error\":\"");
	put(text);
	put("\"}\n");
}
static void dump(char **words, int n, int slot)
{
	static const struct word parts[] = {
		{"maps", WANT_MAPS}, {"smaps", WANT_SMAPS}, {"pagemap", WANT_PAGEMAP}, {"status", WANT_STATUS}, {"numa", WANT_NUMA}, {0, 0}};
	u64 range[2] = {0, 0};
	int want = 0, ranges = 0;
	for (int i = 0; i < n; i++) {
		const struct word *w = parts;
		while (w->name && strcmp(w->name, words[i]))
			w++;
		if (w->name)
			want |= w->value;
		else if (ranges == 2 || parse_expression(words[i], strlen(words[i]), &range[ranges++]))
			return answer_error("bad argument of dump");
	}
	want = want ? want : WANT_MAPS | WANT_SMAPS | WANT_PAGEMAP | WANT_STATUS;
	u64 high = ranges == 2 ? range[0] + range[1] : ~0ULL;
	memset(sh->class, 0, sizeof sh->class);
	sh->nclass = 0;
	if (sh->out_len > OUT_LEN / 2) {
		if (write(1, sh->out, sh->out_len) < 0)
			_exit(1);
		sh->out_len = 0;
	}
	open_answer(sh->lines, slot, "dump");
	if (slot >= 0) {
		dump_process(slot, want, range[0], high);
	} else {
		const char *sep = "\"";
		put(",\"procs\":{");
		for (int i = 0; i < sh->nproc; i++) {
			if (!sh->proc[i].alive)
				continue;
			put(sep);
			put(sh->proc[i].name);
			put("\":{\"p\":0");
			dump_process(i, want, range[0], high);
			put("}");
			sep = ",\"";
		}
		put("}");
	}
	put("}\n");
}
static int parse_arguments(const struct op *op, char **words, int n, struct request *q)
{
	const char *kind = op->args;
	int optional = 0;
	q->id = op->id;
	q->n = n;
	for (int i = 0; i < n; i++, kind++) {
		if (*kind == '?')
			kind++, optional = 1;
		if (!*kind || i == 8)
			return -1;
		const struct word *table = table_of(*kind);
		int bad = 0;
		if (*kind == 's')
			snprintf(q->word, sizeof q->word, "%s", words[i]);
		else if (*kind == 'p')
			bad = (int)(q->a[i] = find_process(words[i])) < 0;
		else if (table)
			bad = parse_flags(words[i], table, &q->a[i]);
		else
			bad = parse_expression(words[i], strlen(words[i]), &q->a[i]);
		if (bad)
			return -1;
	}
	return *kind && *kind != '?' && !optional ? -1 : 0;
}
static int run_line(const struct op *op, const char *variable, char **words, int n)
{
	struct request q = {0};
	struct rusage before, after;
	if (parse_arguments(op, words, n, &q))
		return answer_error("bad arguments"), 0;
	const char *refused = op->id == SYSCTL ? sysctl_refused(&q) : NULL;
	if (refused)
		return answer_error(refused), 0;
	if (op->id == EXIT)
		leave();
	sh->sig = 0;
	sh->extra_len = 0;
	to_extra();
	s64 ret;
	if (op->id == FORK) {
		ret = fork_process(q.word);
		if (ret == 1)
			return 1; /* the child: its turn comes */
		before = after = (struct rusage){0};
	} else {
		getrusage(RUSAGE_SELF, &before);
		ret = execute(&q);
		getrusage(RUSAGE_SELF, &after);
	}
	if (variable) {
		int failed = ret < 0 && ret >= -4095;
		set_variable(variable, !failed ? (u64)ret : op->result == 'F' ? ~0ULL : BASE + (32ULL << 30));
	}
	open_answer(sh->lines, self, op->name);
	put_result(op->result, ret);
	if (sh->sig)
		put_signal();
	put_extra();
	if (after.ru_minflt != before.ru_minflt)
		put_field("min", after.ru_minflt - before.ru_minflt);
	if (after.ru_majflt != before.ru_majflt)
		put_field("maj", after.ru_majflt - before.ru_majflt);
	put("}\n");
	return 0;
}
/* One line of the script. True if it is another process's turn now. */
static int step(void)
{
	char *line = sh->text + sh->text_pos, *words[24], *variable = NULL, *op_word;
	int n = 0, slot = 0, len = strcspn(line, "\n");
	char copy[1024];
	snprintf(copy, sizeof copy, "%.*s", len, line);
	for (char *word = strtok(copy, " \t\r"); word && n < 24; word = strtok(NULL, " \t\r"))
		words[n++] = word;
	char **word = words;
	if (!n || **word == '#') {
		sh->text_pos += len + 1;
		return 0;
	}
	if (**word == '@') {
		slot = !strcmp(*word, "@*") ? -1 : find_process(*word + 1);
		if (slot < 0 && strcmp(*word, "@*"))
			slot = MAXPROC;
		word++, n--;
	} else if (!sh->proc[0].alive) {
		slot = MAXPROC;
	}
	if (slot >= 0 && slot < MAXPROC && slot != self) {
		pass_token(slot);
		return 1;
	}
	sh->text_pos += len + 1;
	sh->lines++;
	sh->progress++;
	snprintf(sh->line, sizeof sh->line, "%.*s", len, line);
	if (slot == MAXPROC || !n)
		return answer_error(n ? "no such process" : "no operation"), 0;
	op_word = *word++;
	n--;
	char *equals = strchr(op_word, '=');
	if (equals) {
		variable = op_word;
		*equals = 0;
		op_word = equals + 1;
	}
	snprintf(sh->last_op, sizeof sh->last_op, "%s", op_word);
	if (!strcmp(op_word, "dump"))
		return dump(word, n, slot), 0;
	if (slot < 0)
		return answer_error("only dump is for all processes"), 0;
	if (!strcmp(op_word, "echo")) {
		open_answer(sh->lines, self, "echo");
		put(",\"text\":\"");
		put_escaped(strstr(sh->line, "echo") + 4 + (n > 0));
		put("\"}\n");
		return 0;
	}
	const struct op *op = ops;
	while (op->name && strcmp(op->name, op_word))
		op++;
	if (!op->name)
		return answer_error("unknown operation"), 0;
	return run_line(op, variable, word, n);
}
void take_turns(void)
{
	for (;;) {
		take_token();
		if (sh->exiting >= 0)
			await_exit();
		/* once the token is passed, nothing of the shared state is ours to look at */
		int passed = 0;
		while (!passed && sh->text_pos < sh->text_len)
			passed = step();
		if (!passed) {
			sh->done = 1;
			_exit(0);
		}
	}
}
