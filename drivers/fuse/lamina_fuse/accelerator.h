/* What the parts of the accelerator know of each other. */
#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

/* Put handlers that need no Python into `ours`; what they cannot answer they pass on to `theirs`. */
void lamina_fuse_answer(const struct fuse_lowlevel_ops *theirs, struct fuse_lowlevel_ops *ours);

/* The request at hand was answered without Python. */
extern int lamina_fuse_served;

/* Put handlers into `ours` of which Python may say early that what was asked is done. */
void lamina_fuse_acknowledge_early(const struct fuse_lowlevel_ops *theirs, struct fuse_lowlevel_ops *ours);

/* A request in words that libfuse knows. */
const struct fuse_buf *lamina_fuse_known(const struct fuse_buf *given);
