/* Writes down what a process sees of itself, each part after a line with its name:
 *
 *     self REPORT         and waits to be ended
 *     self REPORT exit
 *
 * What differs from one process to the next whatever made it (numbers of processes and mounts, use of
 * memory and processors) is left out.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;
static FILE *report;

static void part(const char *name)
{
	fprintf(report, "@%s\n", name);
}

static void copy(const char *path)
{
	char line[8192];
	FILE *file = fopen(path, "re");

	if (!file)
		fprintf(report, "%s: %s\n", path, strerror(errno));
	while (file && fgets(line, sizeof line, file))
		fprintf(report, "%s%s", line, strchr(line, '\n') ? "" : "\n");
	if (file)
		fclose(file);
}

static void status(void)
{
	static const char *wanted[] = {
		"Umask", "Uid", "Gid", "FDSize", "Groups", "Kthread", "CoreDumping", "Threads", "Sig", "Shd",
		"Cap", "NoNewPrivs", "Seccomp", "Cpus_allowed", "Mems_allowed",
	};
	char line[8192];
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof line, file))
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
			/* How many signals wait is of the whole user. */
			if (!strncmp(line, wanted[i], strlen(wanted[i])) && strncmp(line, "SigQ", 4)) {
				fputs(line, report);
				break;
			}
	if (file)
		fclose(file);
}

static void descriptors(void)
{
	char path[64], target[4096];

	for (int fd = 0; fd < 1024; fd++) {
		ssize_t length;
		int flags = fcntl(fd, F_GETFD);
		if (flags < 0 || fd == fileno(report))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		length = readlink(path, target, sizeof target - 1);
		target[length < 0 ? 0 : length] = 0;
		/* Of a pipe or a socket: its number is its own. */
		target[strcspn(target, "[")] = 0;
		fprintf(report, "%d %s flags %#o%s\n", fd, target, fcntl(fd, F_GETFL),
			flags & FD_CLOEXEC ? " closed on exec" : "");
	}
}

static int not_dots(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

static void devices(const char *folder, int depth)
{
	struct dirent **entries;
	int count = scandir(folder, &entries, not_dots, alphasort);

	for (int i = 0; i < count; i++) {
		char path[512], target[512] = "";
		struct stat it;
		snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
		if (lstat(path, &it))
			continue;
		if (S_ISLNK(it.st_mode) && readlink(path, target, sizeof target - 1) < 0)
			continue;
		/* A node's devices, which a privileged container has, may come and go. */
		fprintf(report, "%s %o %d:%d %d:%d %s\n", path, it.st_mode, it.st_uid, it.st_gid,
			major(it.st_rdev), minor(it.st_rdev), target);
		/* Terminals of others come and go. */
		if (S_ISDIR(it.st_mode) && depth && strcmp(path, "/dev/pts"))
			devices(path, depth - 1);
	}
}

static void settings(void)
{
	int signal = -1, reaper = -1, terminal;
	char keyring[512] = "";

	prctl(PR_GET_PDEATHSIG, &signal);
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	fprintf(report, "dumpable %d\nkeepcaps %d\nsecurebits %#x\nsignal of the parent's death %d\n",
		prctl(PR_GET_DUMPABLE), prctl(PR_GET_KEEPCAPS), prctl(PR_GET_SECUREBITS), signal);
	fprintf(report, "subreaper %d\ntimer slack %d\nTHP disabled %d\npersonality %#lx\n", reaper,
		prctl(PR_GET_TIMERSLACK), prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0),
		syscall(SYS_personality, 0xffffffffUL));
	fprintf(report, "nice %d\nI/O priority %ld\nscheduler %ld\n", getpriority(PRIO_PROCESS, 0),
		syscall(SYS_ioprio_get, 1, 0), syscall(SYS_sched_getscheduler, 0));
	terminal = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	fprintf(report, "leads its session %d\nleads its group %d\ncontrolling terminal: %s\n",
		getsid(0) == getpid(), getpgrp() == getpid(), terminal < 0 ? strerror(errno) : "yes");
	if (terminal >= 0) {
		fprintf(report, "in the foreground %d\n", tcgetpgrp(terminal) == getpgrp());
		close(terminal);
	}
	/* KEYCTL_DESCRIBE of KEY_SPEC_SESSION_KEYRING: see keyctl(2). */
	if (syscall(SYS_keyctl, 6, -3, keyring, sizeof keyring - 1) < 0)
		snprintf(keyring, sizeof keyring, "%s", strerror(errno));
	fprintf(report, "session keyring %s\n", keyring);
}

/* The answers to calls with arguments that none accepts. */
static void calls(void)
{
	static const long higher[] = {1000, 4000, 65535, 0x3fffffff};

	/* From a gap in x86's (335 and 336 are uprobes', which end whoever calls them) to the numbers that
	 * are the same on all architectures, and on. */
	for (long call = 340; call < 560; call++) {
		errno = 0;
		syscall(call, -1L, -1L, -1L, -1L, -1L, -1L);
		fprintf(report, "%ld %s\n", call, strerror(errno));
	}
	for (size_t i = 0; i < sizeof higher / sizeof *higher; i++) {
		errno = 0;
		syscall(higher[i], -1L, -1L, -1L, -1L, -1L, -1L);
		fprintf(report, "%ld %s\n", higher[i], strerror(errno));
	}
}

int main(int count, char **arguments)
{
	char name[4096], folder[4096];
	static const char *files[] = {
		"limits", "attr/current", "attr/exec", "cgroup", "oom_score_adj", "uid_map", "gid_map",
		"setgroups", "loginuid", "coredump_filter", "timens_offsets",
	};

	if (count < 2)
		return 2;
	snprintf(name, sizeof name, "%s.new", arguments[1]);
	if (!(report = fopen(name, "we")))
		return 2;
	part("status");
	status();
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/%s", files[i]);
		part(files[i]);
		copy(path);
	}
	part("settings");
	settings();
	part("environment");
	for (char **variable = environ; *variable; variable++)
		fprintf(report, "%s\n", *variable);
	part("directory");
	fprintf(report, "%s\n", getcwd(folder, sizeof folder) ? folder : strerror(errno));
	part("descriptors");
	descriptors();
	part("devices");
	devices("/dev", 2);
	part("mounts");
	copy("/proc/self/mountinfo");
	part("calls");
	calls();
	/* Whole, or not there. */
	if (fclose(report) || rename(name, arguments[1]))
		return 1;
	while (count == 2)
		pause();
	return 0;
}
