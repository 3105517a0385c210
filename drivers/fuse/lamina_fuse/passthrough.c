/* Kernel passthrough, which libfuse knows only since 3.16: the kernel reads and writes a file's descriptor without asking us.
 *
 * The session's public hooks for reading and writing requests (fuse_session_custom_io) let us agree to it in the reply to
 * INIT, and add the descriptor's number in the replies to OPEN and CREATE. Numbers are the
 * kernel's; older headers lack them.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 35
#include <dlfcn.h>
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define PASSTHROUGH (1 << 5) /* of flags2 */
#define OPEN_PASSTHROUGH (1 << 7)
#define DEPTH 1 /* stacked file systems below; the kernel allows two in all, so another overlay may lie above */
struct backing {
	int32_t descriptor;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN _IOW(229, 1, struct backing)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

struct init_out { /* the part up to what we change */
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
};
struct open_out {
	uint64_t handle;
	uint32_t flags;
	int32_t backing;
};

/* By descriptor: 0, or WANTED, and once it was opened the kernel's number for it, or FAILED. hints.py writes WANTED. */
enum { FAILED = -1, WANTED = -2 };
int32_t lamina_fuse_backing[1 << 16];

long lamina_fuse_passthrough; /* whether it is wanted */
static int device, able;     /* the kernel has offered it, and we may use it */
static uint64_t agreeing;    /* the request whose reply agrees to it */
static int32_t passed;	     /* the kernel's number of the file in the reply at hand */

static ssize_t on_read(int fd, void *data, size_t size, void *userdata)
{
	ssize_t got = read(fd, data, size);
	const struct fuse_in_header *head = data;
	const struct fuse_init_in *init = (const void *) (head + 1);

	if (got >= (ssize_t) (sizeof *head + sizeof *init) && head->opcode == FUSE_INIT && init->flags2 & PASSTHROUGH)
		agreeing = head->unique;
	return got;
}

static ssize_t on_writev(int fd, struct iovec *parts, int count, void *userdata)
{
	const struct fuse_out_header *head = parts[0].iov_base;
	struct iovec *last = &parts[count - 1];

	if (agreeing && head->unique == agreeing && !head->error && last->iov_len >= sizeof(struct init_out)) {
		struct init_out *init = last->iov_base;
		init->flags |= FUSE_INIT_EXT;
		init->flags2 |= PASSTHROUGH;
		init->max_stack_depth = DEPTH;
		able = 1;
		agreeing = 0;
	}
	if (passed > 0 && !head->error && last->iov_len >= sizeof(struct open_out)) {
		struct open_out *opened = (void *) ((char *) last->iov_base + last->iov_len - sizeof *opened);
		opened->flags = OPEN_PASSTHROUGH;
		opened->backing = passed;
	}
	return writev(fd, parts, count);
}

int fuse_session_mount(struct fuse_session *session, const char *place)
{
	int (*next)(struct fuse_session *, const char *) = dlsym(RTLD_NEXT, "fuse_session_mount");
	struct fuse_custom_io ours = {.writev = on_writev, .read = on_read};
	int status = next(session, place);

	if (status || !lamina_fuse_passthrough)
		return status;
	device = fuse_session_fd(session);
	fuse_session_custom_io(session, &ours, device);
	return 0;
}

static int32_t backing_of(struct fuse_file_info *fi)
{
	struct backing file = {.descriptor = fi->fh};
	int32_t *known;

	if (!able || fi->fh >= sizeof lamina_fuse_backing / sizeof *lamina_fuse_backing)
		return 0;
	known = &lamina_fuse_backing[fi->fh];
	if (*known == WANTED) {
		*known = ioctl(device, BACKING_OPEN, &file);
		if (*known <= 0) {
			able = errno != EPERM; /* ordinary users may not */
			*known = FAILED;
		}
	}
	if (*known == FAILED)
		fi->keep_cache = 0; /* it may have been passed through before, and changed */
	return *known;
}

int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	static int (*next)(fuse_req_t, const struct fuse_file_info *);
	struct fuse_file_info ours = *fi;
	int status;

	if (!next)
		next = dlsym(RTLD_NEXT, "fuse_reply_open");
	passed = backing_of(&ours);
	status = next(req, &ours);
	passed = 0;
	return status;
}

int fuse_reply_create(fuse_req_t req, const struct fuse_entry_param *entry, const struct fuse_file_info *fi)
{
	static int (*next)(fuse_req_t, const struct fuse_entry_param *, const struct fuse_file_info *);
	struct fuse_file_info ours = *fi;
	int status;

	if (!next)
		next = dlsym(RTLD_NEXT, "fuse_reply_create");
	passed = backing_of(&ours);
	status = next(req, entry, &ours);
	passed = 0;
	return status;
}

/* The descriptor is about to be closed. */
void lamina_fuse_let_go(int descriptor)
{
	uint32_t backing = lamina_fuse_backing[descriptor];

	if (lamina_fuse_backing[descriptor] > 0)
		ioctl(device, BACKING_CLOSE, &backing);
	lamina_fuse_backing[descriptor] = 0;
}
