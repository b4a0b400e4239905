-- What managers and readers may do: five functions, five views and the version, and nothing else.

REVOKE ALL ON SCHEMA pktlab FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pktlab FROM PUBLIC;
GRANT USAGE ON SCHEMA pktlab TO pktlab_manager, pktlab_reader;
GRANT EXECUTE ON FUNCTION
  enter(text, uuid, text, text, int, bytea, text[], text, text[]),
  take(text, uuid, bigint, bytea[], bigint[]),
  finish(text, uuid, bytea[], int[], text[], text[]),
  give_back(text, uuid, bigint, bytea[], bigint[], boolean[]),
  beat(text, uuid, int, boolean)
  TO pktlab_manager;
GRANT SELECT ON standing, member, result, plan, effort, schema_version TO pktlab_reader;
