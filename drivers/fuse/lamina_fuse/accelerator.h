/* What the parts of the accelerator know of each other. */
#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

/* Put handlers that need no Python into `ours`; what they cannot answer they pass on to `theirs`. */
void lamina_fuse_answer(const struct fuse_lowlevel_ops *theirs, struct fuse_lowlevel_ops *ours);
