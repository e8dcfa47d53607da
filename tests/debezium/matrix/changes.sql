-- The stream: every statement is a transaction of its own where nothing else is said.
DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY '{numbers,odd_numbers,text,bytes,times,ranges,shapes,made,unknown,arrays,rare_arrays,required}'::text[] LOOP
    EXECUTE format('INSERT INTO m.%1$I SELECT (r).* FROM (SELECT rw #= hstore(''id'', (rw.id + 1000)::text) AS r FROM src.%1$I rw ORDER BY rw.id) s', t);
  END LOOP;
END $$;
UPDATE m.numbers SET b = false, n = 7.25 WHERE id = 1001;
DELETE FROM m.numbers WHERE id = 1001;
DELETE FROM m.required WHERE id = 1001;
INSERT INTO m.defaults (id, ug, dn, tn, tzn) VALUES (2, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2024-01-01', '2024-01-01', '2024-01-01 00:00+00');
DELETE FROM m.defaults WHERE id = 2;

-- Keys and identities.
INSERT INTO m.two_keys VALUES ('c', 2, 3);
UPDATE m.two_keys SET v = 5 WHERE a = 2;
UPDATE m.two_keys SET a = 7 WHERE a = 2;
DELETE FROM m.two_keys WHERE a = 7;
INSERT INTO m.keyless VALUES (5, 'c', 4);
UPDATE m.keyless SET b = 'z' WHERE a = 1;
UPDATE m.keyless SET a = 9 WHERE a IS NULL;
DELETE FROM m.keyless WHERE a = 1;
INSERT INTO m.whole VALUES (3, 3, 3, 'c');
UPDATE m.whole SET v = 5 WHERE id = 1;
UPDATE m.whole SET v = v WHERE id = 1;
UPDATE m.whole SET id = 7 WHERE id = 1;
DELETE FROM m.whole WHERE id = 7;
DELETE FROM m.whole WHERE id = 2;
INSERT INTO m.by_index VALUES (2, 20, 'b');
UPDATE m.by_index SET v = 'c' WHERE id = 1;
DELETE FROM m.by_index WHERE id = 2;
INSERT INTO m.index_only VALUES (20, 'b');
UPDATE m.index_only SET v = 'c' WHERE alt = 10;
UPDATE m.index_only SET alt = 11 WHERE alt = 10;
DELETE FROM m.index_only WHERE alt = 11;
INSERT INTO m.uniquely VALUES (20, 30, 'b');
INSERT INTO m.nothing VALUES (2, 'b');

-- TOAST: what an update leaves alone is not sent.
UPDATE m.toasted SET v = 2 WHERE id = 1;
UPDATE m.toasted_whole SET v = 2 WHERE id = 1;
UPDATE m.toasted SET t = 'short', n = NULL WHERE id = 1;
UPDATE m.toasted SET id = 2 WHERE id = 1;
DELETE FROM m.toasted WHERE id = 2;
DELETE FROM m.toasted_whole WHERE id = 1;

-- Structure.
INSERT INTO m.changing VALUES (2, 1, 'b', 3, 'd');
ALTER TABLE m.changing ADD e int NOT NULL DEFAULT 9;
INSERT INTO m.changing VALUES (3, 1, 'b', 3, 'd', 10);
ALTER TABLE m.changing DROP b;
INSERT INTO m.changing VALUES (4, 1, 3, 'd', 10);
ALTER TABLE m.changing RENAME d TO dd;
INSERT INTO m.changing VALUES (5, 1, 3, 'd', 10);
ALTER TABLE m.changing ALTER a TYPE text USING 'a' || a;
INSERT INTO m.changing VALUES (6, 'text', 3, 'd', 10);
UPDATE m.changing SET dd = 'x' WHERE id = 1;
ALTER TABLE m.changing ALTER id TYPE bigint;
INSERT INTO m.changing VALUES (7000000000, 'text', 3, 'd', 10);
DELETE FROM m.changing WHERE id = 5;

-- Parts.
INSERT INTO m.parted VALUES (3, 12, 'c');
UPDATE m.parted SET v = 'd' WHERE id = 3;
UPDATE m.parted SET d = 2 WHERE id = 3;
DELETE FROM m.parted WHERE id = 3;
INSERT INTO m."Odd ""name" VALUES (2, 'x', 1, 'ü', 2);
DELETE FROM m."Odd ""name" WHERE "Id" = 2;
INSERT INTO m.generated VALUES (2, 2, DEFAULT, 'z');
UPDATE m.generated SET a = 5 WHERE id = 2;

-- One transaction over several tables, one rolled back in part, and truncates.
BEGIN;
INSERT INTO m.whole VALUES (20, 1, 1, 'tx');
INSERT INTO m.two_keys VALUES ('tx', 1, 20);
SAVEPOINT a;
INSERT INTO m.whole VALUES (21, 1, 1, 'gone');
ROLLBACK TO a;
UPDATE m.whole SET v = 2 WHERE id = 20;
DELETE FROM m.whole WHERE id = 20;
COMMIT;
TRUNCATE m.whole, m.keyless;
TRUNCATE m.parted;
INSERT INTO m.done VALUES (1);
