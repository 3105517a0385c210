-- Who exists, on whom it stands, and what is being done to it. STRICT: a wrong type is an error, not a guess.

CREATE TABLE snapshots (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,  -- also the layer's id: never used twice, unchanged by commit
    name    TEXT    NOT NULL UNIQUE,            -- keys and names share one space
    kind    TEXT    NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
    -- what is being done to it, or was when its worker died; docs/crash-safety.md tells what becomes of each
    step    TEXT    NOT NULL CHECK (step IN
        ('ready', 'preparing', 'filling', 'applying', 'committing', 'removing', 'looking')),
    parent  INTEGER REFERENCES snapshots (id) ON DELETE RESTRICT,
    labels  TEXT    NOT NULL DEFAULT '{}',      -- JSON object of strings
    size    INTEGER,                            -- bytes, once committed
    inodes  INTEGER,
    created INTEGER NOT NULL,                   -- nanoseconds since 1970
    updated INTEGER NOT NULL,
    -- a tar's removals were carried out rather than written down: no parent can be put below it any more
    rooted  INTEGER NOT NULL DEFAULT 0 CHECK (rooted IN (0, 1)),
    -- what a commit in progress will make of it
    next_name   TEXT UNIQUE,
    next_parent INTEGER REFERENCES snapshots (id) ON DELETE RESTRICT,
    next_labels TEXT
) STRICT;

CREATE INDEX children ON snapshots (parent);
CREATE INDEX next_children ON snapshots (next_parent) WHERE next_parent IS NOT NULL;
CREATE INDEX unfinished ON snapshots (step) WHERE step <> 'ready';

-- What we mounted for somebody. Targets are absolute, but a row is only believed in the boot that wrote it.
CREATE TABLE mounts (
    target    BLOB    PRIMARY KEY,
    snapshot  INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    count     INTEGER NOT NULL,  -- how often it was asked for
    depth     INTEGER NOT NULL,  -- how many mounts we put on the target
    below     INTEGER NOT NULL,  -- how many were there before
    boot      TEXT    NOT NULL,
    namespace INTEGER NOT NULL   -- the mount namespace in which it can be seen
) STRICT;

CREATE INDEX mounts_of ON mounts (snapshot);
