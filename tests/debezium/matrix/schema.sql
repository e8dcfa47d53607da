-- Every type of PostgreSQL 15 that a column can have, and every shape of table that change capture knows.
-- `src` holds the rows; they go into `m` once before the snapshot and once, with ids from 1001 on, into the stream.
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION ltree;
CREATE EXTENSION isn;
CREATE EXTENSION cube;
CREATE SCHEMA m;
CREATE SCHEMA src;

CREATE TYPE m.mood AS ENUM ('sad', 'ok', 'very happy');
ALTER TYPE m.mood ADD VALUE 'so-so' BEFORE 'ok';
CREATE TYPE m.pair AS (a int, b text);
CREATE DOMAIN m.price AS numeric(10, 2) CHECK (VALUE > -1000);
CREATE DOMAIN m.deep_price AS m.price;
CREATE DOMAIN m.short AS varchar(5);
CREATE DOMAIN m.stamp AS timestamp(3);
CREATE DOMAIN m.ints AS int[];

CREATE TABLE m.numbers (id int PRIMARY KEY, b bool, i2 int2, i4 int4, i8 int8, o oid, f4 float4, f8 float8,
  n numeric, n5 numeric(5), n52 numeric(5, 2), n38 numeric(38, 10), n100 numeric(100, 50), mon money);
CREATE TABLE m.odd_numbers (id int PRIMARY KEY, n numeric, n52 numeric(5, 2), na numeric(5, 2)[]);
CREATE TABLE m.text (id int PRIMARY KEY, t text, v varchar, v10 varchar(10), c char, c5 char(5), bp bpchar, qc "char",
  nm name, ci citext, x xml, u uuid, j json, jb jsonb, lt ltree, tv tsvector, ine inet, cid cidr, mac macaddr, mac8 macaddr8);
CREATE TABLE m.bytes (id int PRIMARY KEY, ba bytea, b1 bit, b8 bit(8), b12 bit(12), b64 bit(64), vb varbit, vb1 varbit(1), vb10 varbit(10));
CREATE TABLE m.times (id int PRIMARY KEY, d date, t time, t0 time(0), t3 time(3), t4 time(4), ts timestamp, ts0 timestamp(0),
  ts3 timestamp(3), ts4 timestamp(4), tz timestamptz, tz3 timestamptz(3), tt timetz, tt3 timetz(3), iv interval, iv3 interval second(3));
CREATE TABLE m.ranges (id int PRIMARY KEY, i4 int4range, i8 int8range, nr numrange, ts tsrange, tz tstzrange, d daterange);
CREATE TABLE m.shapes (id int PRIMARY KEY, p point, l line, ls lseg, bx box, pa path, po polygon, ci circle);
CREATE TABLE m.made (id int PRIMARY KEY, e m.mood, pr m.price, dp m.deep_price, sh m.short, st m.stamp, di m.ints,
  h hstore, isbn isbn, ean13 ean13, issn issn, upc upc);
CREATE TABLE m.unknown (id int PRIMARY KEY, co m.pair, cu cube, tq tsquery, xi xid, lsn pg_lsn, jp jsonpath, mr int4multirange,
  rc regclass, sn pg_snapshot, lq lquery);
CREATE TABLE m.arrays (id int PRIMARY KEY, b bool[], i2 int2[], i4 int4[], i8 int8[], o oid[], f4 float4[], f8 float8[],
  n numeric[], n52 numeric(5, 2)[], t text[], v10 varchar(10)[], c5 char(5)[], ci citext[], u uuid[], j json[], jb jsonb[],
  ba bytea[], d date[], tm time[], ts timestamp[], ts3 timestamp(3)[], tz timestamptz[], tt timetz[], ine inet[], cid cidr[], mac macaddr[],
  i4r int4range[], i8r int8range[], nr numrange[], tsr tsrange[], tzr tstzrange[], dr daterange[], e m.mood[], lt ltree[]);
CREATE TABLE m.rare_arrays (id int PRIMARY KEY, mon money[], nm name[], iv interval[], b1 bit[], b8 bit(8)[], vb varbit[], x xml[], p point[],
  rc refcursor[], h hstore[], co m.pair[], pr m.price[], tv tsvector[]);
CREATE TABLE m.defaults (id int PRIMARY KEY,
  b bool NOT NULL DEFAULT true, i2 int2 NOT NULL DEFAULT 7, i4 int4 NOT NULL DEFAULT -3, i8 int8 NOT NULL DEFAULT 9000000000,
  f4 float4 NOT NULL DEFAULT 1.5, f8 float8 NOT NULL DEFAULT 2.25, n numeric NOT NULL DEFAULT 12.5, n52 numeric(5, 2) NOT NULL DEFAULT 1.5,
  t text NOT NULL DEFAULT 'it''s', v varchar(9) NOT NULL DEFAULT 'v', c5 char(5) NOT NULL DEFAULT 'c', u uuid NOT NULL DEFAULT '76019d1a-ad2e-4b22-96e9-1a6d6543c818',
  ug uuid NOT NULL DEFAULT gen_random_uuid(), j json NOT NULL DEFAULT '{}', ba bytea NOT NULL DEFAULT '\x0102',
  d date NOT NULL DEFAULT '2024-02-29', tm time NOT NULL DEFAULT '01:02:03', ts timestamp NOT NULL DEFAULT '2024-02-29 01:02:03.5',
  tz timestamptz NOT NULL DEFAULT '2024-02-29 01:02:03+00', dn date NOT NULL DEFAULT current_date, tn timestamp NOT NULL DEFAULT now(), tzn timestamptz NOT NULL DEFAULT now(),
  iv interval NOT NULL DEFAULT '1 day', e m.mood NOT NULL DEFAULT 'ok', arr int[] NOT NULL DEFAULT '{1,2}', ex int NOT NULL DEFAULT 1 + 2,
  mon money NOT NULL DEFAULT 5, ine inet NOT NULL DEFAULT '10.0.0.1', h hstore NOT NULL DEFAULT 'a=>1',
  ot text DEFAULT 'opt', oi int DEFAULT 5, onull text DEFAULT NULL, s serial NOT NULL, idn int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE m.required (id int PRIMARY KEY,
  b bool NOT NULL, i2 int2 NOT NULL, i4 int4 NOT NULL, i8 int8 NOT NULL, o oid NOT NULL, f4 float4 NOT NULL, f8 float8 NOT NULL, n numeric NOT NULL,
  n52 numeric(5, 2) NOT NULL, mon money NOT NULL, t text NOT NULL, v varchar(9) NOT NULL, c5 char(5) NOT NULL, ci citext NOT NULL, u uuid NOT NULL,
  j json NOT NULL, jb jsonb NOT NULL, x xml NOT NULL, ba bytea NOT NULL, b1 bit NOT NULL, b8 bit(8) NOT NULL, vb varbit NOT NULL, d date NOT NULL, tm time NOT NULL,
  t3 time(3) NOT NULL, ts timestamp NOT NULL, ts3 timestamp(3) NOT NULL, tz timestamptz NOT NULL, tt timetz NOT NULL, iv interval NOT NULL,
  ine inet NOT NULL, mac macaddr NOT NULL, i4r int4range NOT NULL, tzr tstzrange NOT NULL, p point NOT NULL, po polygon NOT NULL, ci2 circle NOT NULL,
  e m.mood NOT NULL, h hstore NOT NULL, lt ltree NOT NULL, tv tsvector NOT NULL, arr int[] NOT NULL, ta text[] NOT NULL, pr m.price NOT NULL, isb isbn NOT NULL);

-- Keys, replica identities and TOAST.
CREATE TABLE m.two_keys (b text, v int, a int, PRIMARY KEY (a, b));
CREATE TABLE m.keyless (a int, b text, n int NOT NULL);
ALTER TABLE m.keyless REPLICA IDENTITY FULL;
CREATE TABLE m.whole (id int PRIMARY KEY, v int, n int NOT NULL, t text);
ALTER TABLE m.whole REPLICA IDENTITY FULL;
CREATE TABLE m.by_index (id int PRIMARY KEY, alt int NOT NULL, v text);
CREATE UNIQUE INDEX by_alt ON m.by_index (alt);
ALTER TABLE m.by_index REPLICA IDENTITY USING INDEX by_alt;
CREATE TABLE m.index_only (alt int NOT NULL, v text);
CREATE UNIQUE INDEX only_alt ON m.index_only (alt);
ALTER TABLE m.index_only REPLICA IDENTITY USING INDEX only_alt;
CREATE TABLE m.uniquely (a int NOT NULL UNIQUE, b int NOT NULL, v text, UNIQUE (b));
CREATE TABLE m.nothing (id int PRIMARY KEY, v text);
ALTER TABLE m.nothing REPLICA IDENTITY NOTHING;
CREATE TABLE m.toasted (id int PRIMARY KEY, v int, t text, tn text NOT NULL, ba bytea, j json, jb jsonb, n numeric, n9 numeric(1000, 9), ta text[], ia int[], ua uuid[],
  h hstore, x xml, ci citext, bb varbit, e m.mood, na numeric[], ba2 bytea[], po polygon, tv tsvector, da date[], tsa timestamp[]);
CREATE TABLE m.toasted_whole (LIKE m.toasted INCLUDING ALL);
ALTER TABLE m.toasted_whole REPLICA IDENTITY FULL;
DO $$ DECLARE c record; BEGIN
  FOR c IN SELECT attrelid::regclass t, attname FROM pg_attribute WHERE attrelid IN ('m.toasted'::regclass, 'm.toasted_whole'::regclass) AND attnum > 0 AND attstorage IN ('x', 'm') LOOP
    EXECUTE format('ALTER TABLE %s ALTER %I SET STORAGE EXTERNAL', c.t, c.attname);
  END LOOP;
END $$;

-- Structure that changes, and tables in parts.
CREATE TABLE m.changing (id int PRIMARY KEY, a int, b text, c int NOT NULL DEFAULT 3, d text);
CREATE TABLE m.parted (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
CREATE TABLE m.parted_low PARTITION OF m.parted FOR VALUES FROM (0) TO (10);
CREATE TABLE m.parted_high PARTITION OF m.parted FOR VALUES FROM (10) TO (20);
CREATE TABLE m."Odd ""name" ("Id" int PRIMARY KEY, "x'y-z" text, "1st" int, "ümläut" text, "select" int);
CREATE TABLE m.generated (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED, z text);
CREATE TABLE m.done (id int PRIMARY KEY);

DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY '{numbers,odd_numbers,text,bytes,times,ranges,shapes,made,unknown,arrays,rare_arrays,required}'::text[] LOOP
    EXECUTE format('CREATE TABLE src.%I (LIKE m.%I)', t, t);
  END LOOP;
END $$;
