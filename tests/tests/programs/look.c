/* Looks at every other process in /proc, as fast as it can, until there is a file `stop` beside its
 * report or a minute is over, and reports what leads to the node:
 *
 *     look REPORT DEVICE INODE     (of the node's root directory)
 *
 * A process of husk on its way into the container has a name that begins with "husk"; the last line
 * says how often one was seen. What a process shows from a user namespace of its own is nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static FILE *report;
static unsigned long long device, inode, own_capabilities;
static int found;

static void find(const char *pid, const char *name, const char *what)
{
	if (found++ < 20)
		fprintf(report, "found %s of %s (%s)\n", what, pid, name);
}

static int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	text[length < 0 ? 0 : length] = 0;
	return length > 0;
}

static unsigned long long capabilities(const char *status)
{
	const char *permitted = strstr(status, "CapPrm:"), *effective = strstr(status, "CapEff:");
	if (!permitted || !effective)
		return 0;
	return strtoull(permitted + 7, NULL, 16) | strtoull(effective + 7, NULL, 16);
}

static int leads_to_the_node(const char *path)
{
	struct stat found;
	return stat(path, &found) == 0 && found.st_dev == device && found.st_ino == inode;
}

static int look_at(const char *pid, const char *users)
{
	char path[400], name[64], status[4096], theirs[64] = "";
	struct stat link;
	struct dirent *entry;
	DIR *folder;
	int is_of_husk;

	snprintf(path, sizeof path, "/proc/%s/root", pid);
	int root = leads_to_the_node(path);
	snprintf(path, sizeof path, "/proc/%s/cwd", pid);
	int cwd = leads_to_the_node(path);
	snprintf(path, sizeof path, "/proc/%s/comm", pid);
	if (!read_file(path, name, sizeof name))
		return 0;
	name[strcspn(name, "\n")] = 0;
	is_of_husk = !strncmp(name, "husk", 4) && strcmp(name, "husk-holder");
	if (root)
		find(pid, name, "the node's root");
	if (cwd)
		find(pid, name, "the node's working directory");
	snprintf(path, sizeof path, "/proc/%s/status", pid);
	read_file(path, status, sizeof status);
	snprintf(path, sizeof path, "/proc/%s/ns/user", pid);
	if (readlink(path, theirs, sizeof theirs - 1) > 0 && strcmp(theirs, users))
		return is_of_husk;
	if (capabilities(status) & ~own_capabilities)
		find(pid, name, "a capability");
	if (!is_of_husk)
		return 0;
	snprintf(path, sizeof path, "/proc/%s/fd", pid);
	folder = opendir(path);
	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
		if (stat(path, &link) == 0 && !S_ISFIFO(link.st_mode) && !S_ISCHR(link.st_mode)) {
			char target[200] = "", what[300];
			if (readlink(path, target, sizeof target - 1) < 0)
				continue;
			snprintf(what, sizeof what, "descriptor %s", target);
			/* It may have become the program between two looks. */
			find(pid, name, what);
		}
	}
	if (folder)
		closedir(folder);
	return 1;
}

int main(int count, char **arguments)
{
	char status[4096], own[32], users[64] = "", stop[400];
	struct dirent *entry;
	time_t end = time(NULL) + 60;
	long looks = 0, seen = 0;

	if (count != 4 || !(report = fopen(arguments[1], "w")))
		return 2;
	device = strtoull(arguments[2], NULL, 10);
	inode = strtoull(arguments[3], NULL, 10);
	read_file("/proc/self/status", status, sizeof status);
	own_capabilities = capabilities(status);
	snprintf(own, sizeof own, "%d", getpid());
	snprintf(stop, sizeof stop, "%s.stop", arguments[1]);
	if (readlink("/proc/self/ns/user", users, sizeof users - 1) < 0)
		return 2;
	fprintf(report, "looking\n");
	fflush(report);
	DIR *processes = opendir("/proc");
	while (processes && time(NULL) < end && access(stop, F_OK)) {
		rewinddir(processes);
		while ((entry = readdir(processes)))
			if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && strcmp(entry->d_name, own))
				looks++, seen += look_at(entry->d_name, users);
	}
	fprintf(report, "%ld looks, %ld at husk\n", looks, seen);
	return fclose(report) || found > 0;
}
