-- The five functions of managers, and what they and readers share. Order of locks, everywhere: the campaign's row, the caller's manager,
-- rows of claims; those by endpoint, and all of one call in one list. Who keeps to it can wait for others but never in a
-- circle. Two do a little more: `beat` locks other managers as well, but waits for none of them; `enter` locks the campaign
-- after its new row, which nobody else has seen. Who administers locks the campaign and all managers, and so waits for
-- everybody before he touches claims.

-- A time as all programs tell it, and as folders of managers keep it.
CREATE FUNCTION utc(t timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT to_char(t AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;

-- Enters a manager if it brings what the campaign was created with, and tells what that is. The same id again renews the
-- lease: the answer to the first may have been lost, and a manager counts from the ask that was answered. `descr` may be NULL: whoever has no text of its own takes the campaign's.
-- `known` is the identity of the campaign that the manager was told when it first entered, or NULL: what it was told with it holds
-- for as long as it runs, so it enters no other of the same name.
CREATE FUNCTION enter(c text, m uuid, h text, v text, protocol int, digest bytea, args text[], descr text, keys text[],
                      known text)
RETURNS TABLE(verdict text, lease_ms bigint, n bigint, mlet_digest bytea, argv text[], descriptor text, snikeys text[],
              waves text[], created text, identity text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pktlab, pg_temp AS $$
DECLARE camp campaign;
BEGIN
  SELECT * INTO camp FROM campaign WHERE id = c;
  lease_ms := extract(epoch FROM camp.lease) * 1000;
  created := utc(camp.created_at);
  identity := encode(sha256(convert_to(
    concat_ws(' ', created, lease_ms, coalesce(camp.n, 0), camp.waves, camp.descriptor), 'UTF8')), 'hex');
  verdict := CASE
    WHEN protocol <> 1 THEN 'protocol'
    WHEN camp.id IS NULL THEN 'unknown'
    WHEN known <> identity THEN 'another'
    WHEN digest <> camp.mlet_digest OR args <> camp.argv OR descr <> camp.descriptor OR keys <> camp.snikeys THEN 'different'
    WHEN camp.state <> 'open' THEN camp.state
    ELSE 'entered' END;
  IF verdict = 'entered' THEN
    INSERT INTO manager AS own (campaign, id, host, version, lease_until)
      VALUES (c, m, h, v, clock_timestamp() + camp.lease)
      ON CONFLICT (campaign, id) DO UPDATE SET lease_until = excluded.lease_until
      WHERE own.state = 'live' AND own.lease_until > clock_timestamp();
  END IF;
  n := camp.n; mlet_digest := camp.mlet_digest; argv := camp.argv; descriptor := camp.descriptor;
  snikeys := camp.snikeys; waves := camp.waves;
  RETURN NEXT;
END $$;

-- Gives each endpoint to one session alone. The manager's row is held to the end, so that whoever would mark it lost
-- waits or has done it. A session that asks again what it has been given is told so again.
CREATE FUNCTION take(c text, m uuid, line bigint, keys bytea[], sessions bigint[])
RETURNS TABLE(session bigint, verdict text, epoch int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pktlab, pg_temp AS $$
#variable_conflict use_column
DECLARE camp campaign; own manager; held claim; room bigint; won bigint := 0; k bytea; e int;
BEGIN
  SELECT * INTO camp FROM campaign WHERE id = c;
  IF camp.n IS NOT NULL THEN
    -- The count is that of all managers, so they take one after the other.
    SELECT * INTO camp FROM campaign WHERE id = c FOR NO KEY UPDATE;
  END IF;
  SELECT * INTO own FROM manager WHERE campaign = c AND id = m FOR NO KEY UPDATE;
  IF own.connection > line THEN
    RAISE EXCEPTION 'a newer connection of this manager is there' USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF own.id IS NULL OR own.state <> 'live' OR own.lease_until <= clock_timestamp() THEN
    RETURN QUERY SELECT s, 'fenced', 0 FROM unnest(sessions) AS s;
    RETURN;
  END IF;
  room := camp.n - (SELECT sum(claimed + done) FROM manager WHERE campaign = c);
  FOR k, session IN SELECT x.k, x.s FROM unnest(keys, sessions) AS x(k, s) ORDER BY x.k, x.s LOOP
    e := NULL;
    SELECT * INTO held FROM claim o WHERE o.campaign = c AND o.endpoint = k;
    IF camp.state = 'open' AND (room IS NULL OR room > 0)
       AND (held.endpoint IS NULL OR can_be_taken_again(camp, held.state, held.epoch)) THEN
      INSERT INTO claim AS o (campaign, endpoint, epoch, manager, session, state) VALUES (c, k, 1, m, take.session, 0)
        ON CONFLICT ON CONSTRAINT claim_pkey DO UPDATE
        SET epoch = o.epoch + 1, manager = m, session = take.session, state = 0, at = clock_timestamp()
        WHERE can_be_taken_again(camp, o.state, o.epoch)
        RETURNING o.epoch INTO e;
      IF e IS NULL THEN -- somebody else was faster
        SELECT * INTO held FROM claim o WHERE o.campaign = c AND o.endpoint = k;
      END IF;
    END IF;
    IF e IS NOT NULL THEN
      verdict := 'won'; epoch := e; won := won + 1; room := room - 1;
    ELSE
      epoch := coalesce(held.epoch, 0);
      verdict := CASE
        WHEN held.state = 0 AND held.manager = m AND held.session = take.session THEN 'won'
        WHEN camp.state <> 'open' THEN 'stop'
        WHEN held.state IS NULL THEN 'full'
        WHEN held.state = 1 THEN 'done'
        WHEN held.state = 0 THEN 'busy'
        WHEN can_be_taken_again(camp, held.state, held.epoch) THEN 'full'
        ELSE 'spent' END;
    END IF;
    RETURN NEXT;
  END LOOP;
  IF won > 0 OR own.connection < line THEN
    UPDATE manager SET claimed = claimed + won, connection = line,
                       won_at = CASE WHEN won > 0 THEN clock_timestamp() ELSE won_at END
      WHERE campaign = c AND id = m;
  END IF;
END $$;

CREATE FUNCTION can_be_taken_again(camp campaign, state smallint, epoch int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT epoch < camp.tries_max AND (state = 2 OR state = 3 AND camp.lost_again) $$;

-- The result and "done" are written at once, for the manager and epoch that the row names and for no other. What was
-- accepted before is told to be accepted again. A manager that was lost may still finish what nobody has taken since, as far as
-- `n` leaves room: what is lost counts for that no more. For this the campaign's row is locked, as in `take`; who has a lease
-- goes without, since nothing of his was lost. Nothing new is accepted of a manager whose lease has run out, if the campaign is
-- not open: it may have been taken for over since.
-- Row by row, as in `take`: a plan for all at once, made while the table was empty, would be kept and read all of it.
CREATE FUNCTION finish(c text, m uuid, keys bytea[], epochs int[], outcomes text[], records text[])
RETURNS TABLE(endpoint bytea, epoch int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pktlab, pg_temp AS $$
#variable_conflict use_column
DECLARE camp campaign; own manager; accepted bigint := 0; taken_up bigint := 0; room bigint := 0; o text; r text;
        may_be_over boolean;
BEGIN
  SELECT * INTO own FROM manager WHERE campaign = c AND id = m;
  IF own.state <> 'live' OR own.lease_until <= clock_timestamp() THEN
    SELECT * INTO camp FROM campaign WHERE id = c FOR NO KEY UPDATE;
    room := coalesce(camp.n - (SELECT sum(claimed + done) FROM manager WHERE campaign = c), cardinality(keys));
  END IF;
  SELECT * INTO own FROM manager WHERE campaign = c AND id = m FOR NO KEY UPDATE;
  may_be_over := (own.state <> 'live' OR own.lease_until <= clock_timestamp())
                 AND EXISTS (SELECT 1 FROM campaign WHERE id = c AND state <> 'open');
  FOR endpoint, epoch, o, r IN
    SELECT x.* FROM unnest(keys, epochs, outcomes, records) AS x(k, e, o, r) ORDER BY x.k, x.e LOOP
    IF room > 0 AND NOT may_be_over THEN
      UPDATE claim SET state = 0
        WHERE campaign = c AND endpoint = finish.endpoint AND manager = m AND epoch = finish.epoch AND state = 3;
      IF FOUND THEN
        taken_up := taken_up + 1; room := room - 1;
      END IF;
    END IF;
    UPDATE claim SET state = 1, outcome = o, record = r::json, at = clock_timestamp(),
                     transaction = pg_current_xact_id()::text::bigint
      WHERE campaign = c AND endpoint = finish.endpoint AND manager = m AND epoch = finish.epoch AND state = 0
        AND NOT may_be_over;
    IF FOUND THEN
      accepted := accepted + 1;
      RETURN NEXT;
    ELSE
      PERFORM 1 FROM claim WHERE campaign = c AND endpoint = finish.endpoint AND manager = m
        AND epoch = finish.epoch AND state = 1;
      IF FOUND THEN
        RETURN NEXT;
      END IF;
    END IF;
  END LOOP;
  IF accepted > 0 THEN
    UPDATE manager SET claimed = claimed + taken_up - accepted, done = done + accepted WHERE campaign = c AND id = m;
  END IF;
END $$;

-- For sessions that will not begin, whose endpoints are free again, and for those that have begun and will not be finished,
-- whose endpoints are lost. They are named by their number, since whoever gives back may not know whether he was given it.
-- What an older connection may still have on its way is refused from now on.
CREATE FUNCTION give_back(c text, m uuid, line bigint, keys bytea[], sessions bigint[], begun boolean[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pktlab, pg_temp AS $$
#variable_conflict use_column
DECLARE given bigint := 0; k bytea; s bigint; b boolean;
BEGIN
  PERFORM 1 FROM manager WHERE campaign = c AND id = m FOR NO KEY UPDATE;
  FOR k, s, b IN SELECT x.* FROM unnest(keys, sessions, begun) AS x(k, s, b) ORDER BY x.k, x.s LOOP
    UPDATE claim SET state = CASE WHEN b THEN 3 ELSE 2 END, at = clock_timestamp()
      WHERE campaign = c AND endpoint = k AND manager = m AND session = s AND state = 0;
    IF FOUND THEN
      given := given + 1;
    END IF;
  END LOOP;
  UPDATE manager SET claimed = claimed - given, connection = greatest(connection, line)
    WHERE campaign = c AND id = m AND (given > 0 OR connection < line);
  RETURN given;
END $$;

-- Renews the lease, or ends it; marks others lost whose lease has run out; elects the publisher, which nobody is who has no
-- room; begins waves and rounds; finds that the campaign is over; keeps that endpoints may have come in vain, to this manager
-- (`has_missed`), or to one that was lost or leaves. Tells how it stands, with the state that was decided, which stays "halted"
-- when nobody else is there. Its plans are made anew each time, for tables as large as they are then.
CREATE FUNCTION beat(c text, m uuid, room int, leaving boolean, has_missed boolean)
RETURNS TABLE(alive boolean, publish boolean, state text, n bigint, round int, wave int, managers bigint, places bigint,
              taken bigint, done bigint, lost bigint, released bigint, spent bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pktlab, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE camp campaign; ended uuid[];
BEGIN
  SELECT * INTO camp FROM campaign WHERE id = c FOR NO KEY UPDATE;
  UPDATE manager SET lease_until = clock_timestamp() + camp.lease, places = room
    WHERE campaign = c AND id = m AND state = 'live' AND lease_until > clock_timestamp();
  alive := FOUND;
  -- One that is locked is within a function of its own: the next beat will see.
  ended := ARRAY(SELECT id FROM manager WHERE campaign = c AND state = 'live' AND lease_until <= clock_timestamp()
                 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED);
  IF alive AND leaving THEN
    ended := ended || m;
  END IF;
  PERFORM end_managers(c, ended, CASE WHEN alive THEN m END);
  UPDATE campaign SET missed = true WHERE id = c AND NOT missed AND has_missed;
  UPDATE campaign SET publisher = NULL WHERE id = c AND alive AND room = 0 AND publisher = m;
  UPDATE campaign x SET publisher = m, wave_at = clock_timestamp()
    WHERE x.id = c AND alive AND NOT leaving AND room > 0
      AND NOT EXISTS (SELECT 1 FROM manager p WHERE p.campaign = c AND p.id = x.publisher AND p.state = 'live');
  PERFORM advance(c);
  RETURN QUERY SELECT beat.alive, alive AND s.publisher IS NOT DISTINCT FROM m AND NOT leaving, x.state, s.n, s.round,
                      s.wave, s.managers, s.places, s.taken, s.done, s.lost, s.released, s.spent
    FROM standing s JOIN campaign x ON x.id = s.campaign WHERE s.campaign = c;
END $$;

-- Marks these managers as lost, and one of them as having left. What they had not finished is lost; all of it is locked in one
-- list. Called with the rows of the campaign and of these managers locked.
CREATE FUNCTION end_managers(c text, ended uuid[], leaving uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pktlab, pg_temp AS $$
BEGIN
  PERFORM 1 FROM claim WHERE campaign = c AND manager = ANY (ended) AND state = 0 ORDER BY endpoint FOR NO KEY UPDATE;
  UPDATE claim SET state = 3, at = clock_timestamp() WHERE campaign = c AND manager = ANY (ended) AND state = 0;
  UPDATE manager SET state = CASE WHEN id = leaving THEN 'left' ELSE 'lost' END, claimed = 0, places = 0
    WHERE campaign = c AND id = ANY (ended);
  -- Endpoints that had come to one of them may have come in vain.
  UPDATE campaign SET missed = true WHERE id = c AND NOT missed AND cardinality(ended) > 0;
END $$;

-- The next wave when more than half of all places are free; the next round when the view says so. Called with the campaign's
-- row locked.
CREATE FUNCTION advance(c text) RETURNS void LANGUAGE plpgsql SET search_path = pktlab, pg_temp AS $$
DECLARE s standing; camp campaign;
BEGIN
  SELECT * INTO s FROM standing WHERE campaign = c;
  SELECT * INTO camp FROM campaign WHERE id = c;
  IF camp.state IN ('open', 'draining') AND s.done >= camp.n THEN
    UPDATE campaign SET state = 'over' WHERE id = c;
  ELSIF camp.state <> 'open' OR s.taken >= camp.n THEN
    NULL;
  ELSIF camp.wave < cardinality(camp.waves) THEN
    UPDATE campaign SET wave = wave + 1, wave_at = clock_timestamp()
      WHERE id = c AND clock_timestamp() - wave_at >= wave_gap AND s.claimed * 2 < s.places;
  ELSE
    UPDATE campaign SET round = round + 1, wave = 1, round_at = clock_timestamp(), wave_at = clock_timestamp(), missed = false,
                        vain_rounds = rounds_in_vain(camp, s.won_at)
      WHERE id = c AND s.next_round_at <= clock_timestamp();
  END IF;
END $$;
