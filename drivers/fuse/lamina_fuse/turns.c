/* From one request to the next: what needs no Python is followed by the next one at once, and who asked for what Python has
 * done does not wait for its bookkeeping.
 */
#define _GNU_SOURCE
#include "accelerator.h"
#include <dlfcn.h>
#include <poll.h>
#include <time.h>

#define LONGEST 100000000L /* nanoseconds between two looks at Python, which has signals to heed */
#define PATIENCE 100 /* milliseconds to wait for the next request before trio does, which takes longer to wake */
#define MOST_LUCK 32	 /* tries to look out that make up for as many in vain, */
#define PENALTY 8	 /* each of which costs so many */

long lamina_fuse_look_out; /* nanoseconds to stay awake for the next request; hints.py sets it */
int lamina_fuse_served;
static long looked; /* when Python was last left to wait */
static const struct fuse_lowlevel_ops *theirs;

/* Python has done on disk what was asked, and goes on with what only it has to know: who asked need not wait for that. */
static fuse_req_t asked;	/* the request at hand, if its answer is a plain yes or no */
static fuse_req_t acknowledged; /* it was answered already */

void lamina_fuse_acknowledge(void)
{
	fuse_req_t req = asked;

	if (!req)
		return;
	asked = NULL;
	fuse_reply_err(req, 0);
	acknowledged = req;
}

int fuse_reply_err(fuse_req_t req, int error)
{
	static int (*next)(fuse_req_t, int);

	if (!next)
		next = dlsym(RTLD_NEXT, "fuse_reply_err");
	if (req == acknowledged) {
		acknowledged = NULL;
		return 0;
	}
	return next(req, error);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	asked = req;
	theirs->unlink(req, parent, name);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	asked = req;
	theirs->rmdir(req, parent, name);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *new,
		      unsigned int flags)
{
	asked = req;
	theirs->rename(req, parent, name, to, new, flags);
}

static long nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Whether there is a request, or comes one soon. Clients that wait for each answer ask again within microseconds: to look
 * out for that takes less of everybody's time than to sleep and be woken. After a try in vain some go without. */
static int comes_soon(int device)
{
	static int luck;
	struct pollfd waiting = {.fd = device, .events = POLLIN};
	long now = nanoseconds(), until = now + lamina_fuse_look_out;

	if (now - looked > LONGEST)
		return 0;
	if (poll(&waiting, 1, 0) > 0)
		return 1;
	if (luck++ < 0 || !lamina_fuse_look_out)
		return poll(&waiting, 1, PATIENCE) > 0;
	while (nanoseconds() < until)
		if (poll(&waiting, 1, 0) > 0) {
			luck = luck < MOST_LUCK ? luck : MOST_LUCK;
			return 1;
		}
	luck -= PENALTY;
	return poll(&waiting, 1, PATIENCE) > 0;
}

/* If not, Python is to wait. */
int lamina_fuse_wait(int device)
{
	if (comes_soon(device))
		return 1;
	looked = nanoseconds();
	return 0;
}

/* pyfuse3 hands over one request, and returns to trio for the next: stay while none of them needs Python */
void fuse_session_process_buf(struct fuse_session *session, const struct fuse_buf *first)
{
	static void (*process)(struct fuse_session *, const struct fuse_buf *);
	static struct fuse_buf next;

	if (!process)
		process = dlsym(RTLD_NEXT, "fuse_session_process_buf");
	for (const struct fuse_buf *request = first;; request = &next) {
		lamina_fuse_served = 0;
		asked = acknowledged = NULL;
		process(session, lamina_fuse_known(request));
		if (!lamina_fuse_served || !comes_soon(fuse_session_fd(session)))
			return;
		if (fuse_session_exited(session) || fuse_session_receive_buf(session, &next) <= 0)
			return;
	}
}

void lamina_fuse_acknowledge_early(const struct fuse_lowlevel_ops *given, struct fuse_lowlevel_ops *ours)
{
	theirs = given;
	ours->unlink = on_unlink;
	ours->rmdir = on_rmdir;
	ours->rename = on_rename;
}
