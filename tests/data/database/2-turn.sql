-- The tables of a condo of this step, with two VPSs that may talk to each other.
CREATE TABLE vps (
    name     TEXT PRIMARY KEY,
    id       INTEGER NOT NULL UNIQUE,
    uid_base INTEGER NOT NULL UNIQUE,
    address  TEXT NOT NULL UNIQUE,
    uuid     TEXT NOT NULL UNIQUE,
    config   TEXT NOT NULL,
    created  INTEGER NOT NULL
) STRICT;
CREATE TABLE last_exit (
    name   TEXT PRIMARY KEY REFERENCES vps ON DELETE CASCADE,
    reason TEXT NOT NULL,
    status INTEGER,
    signal INTEGER,
    at     INTEGER NOT NULL
) STRICT;
CREATE TABLE pair (
    a TEXT NOT NULL REFERENCES vps ON DELETE CASCADE,
    b TEXT NOT NULL REFERENCES vps ON DELETE CASCADE,
    PRIMARY KEY (a, b),
    CHECK (a < b)
) STRICT;
CREATE INDEX pair_b ON pair (b);
CREATE TABLE network (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    bridge    TEXT NOT NULL,
    nft_table TEXT NOT NULL,
    subnet    TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS turn (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    address TEXT NOT NULL
) STRICT;
PRAGMA user_version = 1;
INSERT INTO vps VALUES ('db', 2, 2000000000, '10.88.0.3', '5f0c2b0e-4c1a-4b11-9a41-000000000002', '{"image":"busybox"}', 1760000000);
INSERT INTO vps VALUES ('web', 1, 1999934464, '10.88.0.2', '5f0c2b0e-4c1a-4b11-9a41-000000000001', '{"image":"busybox","limits":{"memory":67108864,"pids":64},"allow":["db"]}', 1760000000);
INSERT INTO last_exit VALUES ('web', 'exited', 3, NULL, 1760000100);
INSERT INTO pair VALUES ('db', 'web');
INSERT INTO network VALUES (1, 'condo0', 'condo', '10.88.0.0/16');
