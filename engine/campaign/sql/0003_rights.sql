-- What managers may do, five functions, and readers, six views with what they call, the version and how a time is told; and nothing else.

REVOKE ALL ON SCHEMA pktlab FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pktlab FROM PUBLIC;
GRANT USAGE ON SCHEMA pktlab TO pktlab_manager, pktlab_reader;
GRANT EXECUTE ON FUNCTION
  enter(text, uuid, text, text, int, bytea, text[], text, text[], text),
  take(text, uuid, bigint, bytea[], bigint[]),
  finish(text, uuid, bytea[], int[], text[], text[]),
  give_back(text, uuid, bigint, bytea[], bigint[], boolean[]),
  beat(text, uuid, int, boolean, boolean)
  TO pktlab_manager;
GRANT EXECUTE ON FUNCTION utc(timestamptz), rounds_in_vain(campaign, timestamptz), next_round_at(campaign, timestamptz)
  TO pktlab_reader;
GRANT SELECT ON standing, member, result, plan, effort, outcome, schema_version TO pktlab_reader;
