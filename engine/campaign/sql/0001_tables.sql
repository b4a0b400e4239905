-- Tables, indexes and views of campaigns. Managers and readers never touch a table: they have functions and views.

CREATE TABLE campaign(
  id text PRIMARY KEY,
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'draining', 'halted', 'over')),
  n bigint CHECK (n > 0),
  tries_max int NOT NULL CHECK (tries_max > 0),
  lease interval NOT NULL CHECK (lease >= '1 s'),
  -- Whether an endpoint that was lost with its manager is taken again.
  lost_again boolean NOT NULL,
  mlet_digest bytea NOT NULL CHECK (octet_length(mlet_digest) = 32),
  argv text[] NOT NULL,
  descriptor text NOT NULL,
  snikeys text[] NOT NULL,
  waves text[] NOT NULL,
  -- Both count from 1. Without waves, wave stays 1.
  round int NOT NULL DEFAULT 1,
  wave int NOT NULL DEFAULT 1,
  -- There may be endpoints that came in vain since the last round began.
  missed boolean NOT NULL DEFAULT false,
  publisher uuid,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  round_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- When endpoints were last called: by a round, a wave or a new publisher.
  wave_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- So many rounds before this one, one after the other, in which nothing was won and nobody came in vain.
  vain_rounds int NOT NULL DEFAULT 0,
  -- So long nothing must have been won, and so long the last must have been ago, before another begins.
  round_quiet interval NOT NULL DEFAULT '30 s',
  round_gap interval NOT NULL DEFAULT '60 s',
  wave_gap interval NOT NULL DEFAULT '10 s'
);

-- Its counts are of its own claims, so that managers need no row in common while they take and finish.
CREATE TABLE manager(
  campaign text NOT NULL REFERENCES campaign ON DELETE CASCADE,
  id uuid NOT NULL,
  host text NOT NULL,
  version text NOT NULL,
  state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'lost', 'left')),
  lease_until timestamptz NOT NULL,
  -- The newest of its connections: what an older one still brings is refused.
  connection bigint NOT NULL DEFAULT 0,
  places int NOT NULL DEFAULT 0,
  claimed bigint NOT NULL DEFAULT 0,
  done bigint NOT NULL DEFAULT 0,
  won_at timestamptz,
  entered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (campaign, id)
) WITH (fillfactor = 50);

-- state: 0 claimed, 1 done, 2 released (given back before it began), 3 lost: with its manager,
-- or because the manager has given up to report it.
-- The record is json and not jsonb, which refuses the character U+0000 that a mlet may have written.
CREATE TABLE claim(
  campaign text NOT NULL,
  endpoint bytea NOT NULL CHECK (octet_length(endpoint) = 32),
  epoch int NOT NULL,
  manager uuid NOT NULL,
  session bigint NOT NULL,
  state smallint NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  outcome text,
  record json,
  -- The transaction that finished it: by this whoever follows results knows what he has not seen.
  transaction bigint,
  PRIMARY KEY (campaign, endpoint)
) WITH (fillfactor = 70);

-- An open claim is found by its endpoint. Without it in the index, until a new table has been analysed for the first time, each
-- result is looked for among all open claims of its manager, and among those that were open since the last vacuum.
CREATE INDEX claim_open ON claim(campaign, manager, endpoint) WHERE state = 0;
CREATE INDEX claim_lost ON claim(campaign, epoch, state) WHERE state IN (2, 3);
CREATE INDEX claim_done ON claim(campaign, transaction, endpoint) WHERE state = 1;

-- So many rounds there are, one after the other, in which nothing was won and nobody came in vain, when the last was won at
-- this time.
CREATE FUNCTION rounds_in_vain(camp campaign, won_at timestamptz) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN camp.missed OR won_at >= camp.round_at THEN 0 ELSE least(camp.vain_rounds + 1, 20) END $$;

-- When another round may begin at the earliest: who is called may be gone for good, so after each of these rounds the
-- next waits twice as long, up to an hour.
CREATE FUNCTION next_round_at(camp campaign, won_at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(
    greatest(won_at, camp.wave_at) + camp.round_quiet,
    greatest(camp.round_at, camp.wave_at) + least(camp.round_gap * power(2, pktlab.rounds_in_vain(camp, won_at)),
                                                  greatest(camp.round_gap, interval '1 hour'))) $$;

-- How a campaign stands. A manager is live until somebody has marked it, even if its lease has run out. A campaign that was
-- stopped or halted is over as soon as no manager with a lease is there, whoever looks and whether anybody has marked them.
-- It stays so: who has lost its lease never gets it back, and nobody enters any more.
CREATE VIEW standing AS
  SELECT c.id AS campaign, CASE WHEN c.state IN ('draining', 'halted') AND m.leases = 0 THEN 'over' ELSE c.state END AS state,
         c.n, c.tries_max, c.round, c.wave, cardinality(c.waves) AS waves, c.publisher,
         m.managers, m.places, m.claimed, m.claimed + m.done AS taken, m.done, m.won_at, l.lost, l.released, l.spent,
         c.state AS decided,
         -- All waves are through, and there is somebody to be called again: who was lost or given back, or, where more than half of
         -- all places are free, may have come in vain.
         CASE WHEN c.state = 'open' AND c.wave >= cardinality(c.waves) AND (c.n IS NULL OR m.claimed + m.done < c.n)
                   AND (l.lost + l.released > 0 OR c.missed AND m.claimed * 2 < m.places)
              THEN next_round_at(c, m.won_at) END AS next_round_at
  FROM campaign c
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE x.state = 'live') AS managers,
           count(*) FILTER (WHERE x.state = 'live' AND x.lease_until > clock_timestamp()) AS leases,
           coalesce(sum(x.places) FILTER (WHERE x.state = 'live'), 0)::bigint AS places,
           coalesce(sum(x.claimed), 0)::bigint AS claimed, coalesce(sum(x.done), 0)::bigint AS done,
           max(x.won_at) AS won_at
    FROM manager x WHERE x.campaign = c.id) m
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE o.state = 3 AND o.epoch < c.tries_max AND c.lost_again) AS lost,
           count(*) FILTER (WHERE o.state = 2 AND o.epoch < c.tries_max) AS released,
           count(*) FILTER (WHERE o.epoch >= c.tries_max OR o.state = 3 AND NOT c.lost_again) AS spent
    FROM claim o WHERE o.campaign = c.id AND o.state IN (2, 3)) l;

CREATE VIEW member AS
  SELECT campaign, id, host, version, state, lease_until, places, claimed, done, won_at, entered_at FROM manager;

CREATE VIEW result AS
  SELECT o.campaign, o.endpoint, o.epoch, m.host, o.session, o.outcome, o.at, o.record, o.transaction
  FROM claim o LEFT JOIN manager m ON m.campaign = o.campaign AND m.id = o.manager
  WHERE o.state = 1;

CREATE VIEW plan AS
  SELECT id AS campaign, mlet_digest, argv, descriptor, snikeys, waves, (extract(epoch FROM lease) * 1000)::bigint AS lease_ms,
         lost_again, created_at, round_at, wave_at
  FROM campaign;

-- What the campaign has cost, and how fast it goes. It reads all claims.
CREATE VIEW effort AS
  SELECT c.id AS campaign, coalesce(sum(o.epoch), 0)::bigint AS claims,
         count(*) FILTER (WHERE o.state = 1 AND o.at > clock_timestamp() - interval '60 s') AS done_last_minute
  FROM campaign c LEFT JOIN claim o ON o.campaign = c.id GROUP BY c.id;

-- How sessions ended whose results were accepted. It reads all claims.
CREATE VIEW outcome AS
  SELECT campaign, coalesce(outcome, '') AS outcome, count(*) AS endpoints FROM claim WHERE state = 1 GROUP BY 1, 2;
