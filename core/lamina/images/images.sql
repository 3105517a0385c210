-- The image store: which names point at which images, what each image stands on, and who is at work.
-- "things" are what can be deleted: `blob/sha256:…` and `DRIVER/SNAPSHOT`, a snapshot in that driver's store.

CREATE TABLE images (
    id       TEXT PRIMARY KEY,  -- digest of the config
    manifest TEXT NOT NULL,     -- digest of the manifest; its blob is kept byte for byte
    platform TEXT NOT NULL,
    created  TEXT,              -- what the config says
    size     INTEGER NOT NULL,  -- all layers unpacked; kept, never walked
    added    TEXT NOT NULL
) STRICT;

CREATE TABLE layers (
    image      TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    position   INTEGER NOT NULL,  -- 0 is the lowest
    diff_id    TEXT NOT NULL,
    chain_id   TEXT NOT NULL,
    blob       TEXT NOT NULL,
    media_type TEXT NOT NULL,
    blob_size  INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_content ON layers (diff_id);

CREATE TABLE names (
    name  TEXT PRIMARY KEY,  -- canonical: docker.io/library/busybox:latest
    image TEXT NOT NULL REFERENCES images ON DELETE RESTRICT
) STRICT;
CREATE INDEX names_of_image ON names (image);

CREATE TABLE digests (
    name  TEXT PRIMARY KEY,  -- canonical: docker.io/library/busybox@sha256:…
    image TEXT NOT NULL REFERENCES images ON DELETE RESTRICT
) STRICT;
CREATE INDEX digests_of_image ON digests (image);

CREATE TABLE containers (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    image    TEXT NOT NULL,    -- not a reference: a forced rmi leaves the container its layers
    driver   TEXT NOT NULL,    -- in whose store its snapshot lies
    created  TEXT NOT NULL,
    record   TEXT NOT NULL     -- JSON
) STRICT;
CREATE INDEX containers_of_image ON containers (image);

-- Who needs what. A thing that nobody uses may be deleted. An owner is `image ID`, `container ID`, `mount KEY` or `lease ID`.
CREATE TABLE uses (
    owner TEXT NOT NULL,
    thing TEXT NOT NULL,
    PRIMARY KEY (owner, thing)
) STRICT, WITHOUT ROWID;
CREATE INDEX users_of_thing ON uses (thing);

-- A process at work. It holds a lock on the file leases/ID as long as it lives.
CREATE TABLE leases (
    id      TEXT PRIMARY KEY,
    started TEXT NOT NULL
) STRICT;

-- Things that are being deleted right now, and by whom. Whoever needs one waits until it is gone.
CREATE TABLE doomed (
    thing TEXT PRIMARY KEY,
    lease TEXT NOT NULL
) STRICT;

PRAGMA user_version = 1;
