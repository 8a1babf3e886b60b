"""What each figure at `/metrics` says, in words: the part of the metrics reference that code cannot tell."""

from __future__ import annotations

MEANINGS: dict[str, str] = {
    "spile_http_requests_total": "HTTP requests answered, by `method`, `route` and `status`. A counter.",
    "spile_http_request_seconds": (
        "Seconds from a request's headers to its answer's last byte, by `method` and `route`. A histogram; live "
        "feeds are left out."
    ),
    "spile_http_depth": (
        "In work now, by `name`: connections, requests, bytes of bodies, live feeds, uploads and downloads of "
        "attachments, refusals held for a moment."
    ),
    "spile_http_limit": "The limits of the same, by the same names.",
    "spile_pressure_units": "Writes in work over every way in, in request units (a KiB each).",
    "spile_pressure_window": "What they have to fit in while writes wait for too long; 0 while they do not.",
    "spile_pressure_clients": "Clients that have writes in work.",
    "spile_pressure_waited_ms": "The shortest wait of a write in the last interval; the target is `queue_ms_target`.",
    "spile_pressure_refused": "Requests refused since the start, by the setting (label `name`) that was exceeded.",
    "spile_pressure_rated_clients": "Clients whose rate is remembered; 0 without `units_per_second`.",
    "spile_requests_refused": "Requests over MQTT refused because one of their limits was reached, since the start.",
    "spile_http_refused": "Requests refused because one of these limits was reached, since the start.",
    "spile_store_writer_waiting": "Writes that wait for the writer; the limit is `write_queue_max`.",
    "spile_store_writer_waiting_bytes": "Bytes of the bodies among them.",
    "spile_store_writer_groups": "Transactions that the writer has committed since the start.",
    "spile_store_writer_operations": "Calls that were served in these; operations per group tell how well it groups.",
    "spile_store_writer_failures": "Transactions that failed as a whole and were tried call by call.",
    "spile_store_writer_last_group": "Calls in the newest transaction.",
    "spile_store_conflicts_settled": "Conflicts that merge rules have resolved since the start.",
    "spile_store_conflicts_failed": "Conflicts that a rule was asked about and left; the list of conflicts says why.",
    "spile_mqtt_connections": "MQTT connections open now.",
    "spile_mqtt_sessions": "MQTT sessions known now, persistent ones that are away included.",
    "spile_mqtt_persistent_sessions": "Those of them that outlive their connection.",
    "spile_mqtt_subscriptions": "Topic filters subscribed to now, over all sessions.",
    "spile_mqtt_received": "Publications that came from clients since the start.",
    "spile_mqtt_delivered": "Messages handed to clients' sockets since the start.",
    "spile_mqtt_dropped": "Messages of QoS 0 lost because a session's queue was full.",
    "spile_mqtt_disconnected_slow": "Clients cut off because they did not read.",
    "spile_mqtt_discarded_sessions": "Persistent sessions ended because too much was kept for them.",
    "spile_mqtt_refused": "Publications that were denied.",
    "spile_mqtt_request_failures": "Requests that ended with an error nobody expected; look into the log.",
    "spile_mqtt_connected": "External broker: 1 while the connection to it stands, else 0.",
    "spile_mqtt_connects": "External broker: how often it was connected to since the start.",
    "spile_mqtt_acknowledged": "External broker: messages that it acknowledged since the start.",
    "spile_mqtt_set_aside": "External broker: messages it closes the connection on; they were logged and passed.",
    "spile_mqtt_requests_dropped": "External broker: messages not answered: retained, no requests, or too many.",
    "spile_mqtt_unheard": "External broker: answers that could not be given since it was away.",
    "spile_mqtt_bytes_in": "Bytes received from MQTT clients.",
    "spile_mqtt_bytes_out": "Bytes sent to MQTT clients.",
    "spile_mqtt_queues": (
        "Depth of the broker's queues by `name`: messages that wait (`mqtt_deliveries`), are sent and not yet "
        "acknowledged (`mqtt_in_flight`), are kept for absent sessions (`mqtt_kept`), requests in work "
        "(`mqtt_requests`), refused ones that wait for their PUBACK (`mqtt_slowed`), retained messages "
        "on their way to new subscribers (`mqtt_replays`), changes of the broker's own state that wait for the disk "
        "(`mqtt_state`)."
    ),
    "spile_publisher_published": "Messages that the publisher handed to the broker since the start.",
    "spile_publisher_seq_behind": (
        "Changes of a `barrel` that a `broker` was not yet told, by the stored position; every broker that was ever "
        "published to is shown."
    ),
    "spile_publisher_seconds_behind": "How old the oldest of these is; 0 when there are none.",
    "spile_publisher_set_aside": "Messages that the broker will never take; they were logged and passed.",
    "spile_publisher_holder": "With an external broker: 1 where this process publishes to it, else 0.",
    "spile_publisher_term": "The number of its turn, 0 where another publishes. It grows with each take-over.",
    "spile_publisher_terms": "How often this process became the one that publishes, since the start.",
    "spile_publisher_waiting_seconds": "For how long it has waited for the broker or the store; 0 while it does not.",
    "spile_health_ok": "By part (label `name`) 1, or 0 while it is `failing` and refuses what it is there for.",
    "spile_health_waiting": "By part 1 while it is `waiting`: it stands still, and goes on by itself. Else 0.",
    "spile_streams_streams": "Streams open now, over every transport.",
    "spile_stream_seq_behind": (
        "Changes that the listener of a stream has still to be told or to acknowledge, by `barrel`, `client` and "
        "`stream`. What its patterns do not match is passed without it."
    ),
    "spile_stream_seconds_behind": "How old the oldest of these is.",
    "spile_listener_seq_behind": (
        "Changes that a `listener` with a name has still to do in a `barrel`: as of its stream while it is "
        "connected, else all that was written since its cursor."
    ),
    "spile_listener_seconds_behind": (
        "How old the oldest of these is; 0 when it is level. Beyond what the log keeps: at least so much."
    ),
    "spile_listener_connected": "Whether it is connected to this process: 1 or 0.",
    "spile_listener_snapshot": (
        "1 where its place does not hold any more (the barrel was made anew, or the log forgot it) or it is being "
        "told everything anew; else 0."
    ),
    "spile_lag_age_seconds": (
        "How old these figures are; they are looked at when somebody asks, once a second at most. It grows while the "
        "store cannot be read."
    ),
    "spile_lag_left_out": (
        "By `kind` (`listener`, `stream`, `publisher`) how many have no series of their own: the 200 that are "
        "furthest behind are shown. `spile listeners` shows all."
    ),
    "spile_streams_cursors_waiting": "Cursors of listeners that wait to be stored.",
    "spile_streams_replays_waiting": "Replays of the past that wait for a thread.",
    "spile_requests_depth": "Requests over MQTT in work (`mqtt_requests`), and their bytes (`mqtt_request_bytes`).",
    "spile_requests_limit": "The limits of both.",
    "spile_requests_clients": "Clients with requests in work.",
    "spile_requests_uploads": "Documents that clients have begun to send in ranges.",
    "spile_requests_upload_bytes": "Bytes held of these.",
    "spile_requests_blob_uploads": "Names of uploads of contents over MQTT that are remembered.",
    "spile_requests_uploads_remembered": "Finished uploads whose answer is still kept.",
    "spile_requests_served": "Requests served since the start, by verb (label `name`).",
    "spile_requests_rejected": "Requests refused since the start, by error code (label `name`).",
    "spile_requests_unheard": "Answers whose client had gone.",
    "spile_maintenance_rounds": "Rounds of upkeep since the start; one every `maintain_every` seconds.",
    "spile_maintenance_last_expired": "Documents that the last round let expire.",
    "spile_maintenance_last_settled": "Conflicts that it resolved by merge rules.",
    "spile_maintenance_last_log": "Rows of the log that it forgot.",
    "spile_maintenance_last_bodies": "Bodies of superseded revisions that it dropped.",
    "spile_maintenance_last_gone": "Left paths that it forgot.",
    "spile_maintenance_last_tokens": "Tokens of requests that it forgot, being older than a day.",
    "spile_maintenance_last_dropped": "Rows of dropped barrels that it cleared away.",
    "spile_maintenance_last_uploads": "Uploads that it gave up, since nobody had gone on with them for a day.",
    "spile_nested_depth": "Nested calls in work, asked for by clients and by other services.",
    "spile_nested_limit": "The limit of the same.",
    "spile_nested_refused": "Nested calls refused since it was reached, since the start.",
    "spile_nested_writes": "Documents passed on, or tried to be, since the start.",
    "spile_nested_complete": "Those of them that as many have as were asked for.",
    "spile_nested_reads": "Documents looked for at peers since the start.",
    "spile_nested_found": "Those of them that somebody knew.",
    "spile_nested_kept": "Those of them that were kept here.",
    "spile_replications_at_work": "Replications that this process runs.",
    "spile_replications_once": "Replications that it runs once, for a client that waits for their end.",
    "spile_replications_waiting": "Replications at work that wait for a peer, or to be tried again.",
    "spile_replications_holder": "1 where this process is the one that runs replications, else 0.",
    "spile_replications_read": "Changes that a replication has read, by its id (label `name`).",
    "spile_replications_written": "Revisions that it has written.",
    "spile_replications_refused": "Revisions that its target has refused.",
    "spile_replications_retries": "Calls to a peer that it had to make again.",
    "spile_replications_behind": "Changes of its source that it has not looked at, at most.",
    "spile_blobs_contents": "Contents of attachments that are kept, each once however many documents have it.",
    "spile_blobs_bytes": "Their bytes.",
    "spile_blobs_refs": "Revisions that have them, counted for each content.",
    "spile_blobs_damaged": "Those whose bytes are known to be damaged; `spile check` names them.",
    "spile_blobs_files": "Files in the folder of contents, where it is one of this machine.",
    "spile_blobs_free_bytes": "What is left on its disk.",
    "spile_blobs_incoming": "Contents on their way in, uploads included that wait for their next part.",
    "spile_blobs_waiting": "Chunks that wait for the disk.",
    "spile_blobs_waiting_bytes": "Their bytes.",
    "spile_blobs_blocked": "Writers that wait because too much waits already.",
    "spile_blobs_groups": "Groups of chunks committed since the start; those of a group share their syncs.",
    "spile_blobs_syncs": "Syncs of files for them.",
    "spile_blobs_steps": "Chunks committed in them.",
    "spile_blobs_written_bytes": "Their bytes.",
    "spile_blobs_failures": "Groups that failed as a whole.",
    "spile_blobs_handles": "Files of contents held open now.",
    "spile_blobs_punched_bytes": "Bytes given back to the disk in the middle of files, since the start.",
    "spile_blobs_scrubbed_bytes": "Bytes that the scrubber has verified since the start.",
    "spile_blobs_epoch": "The epoch of the blob files.",
    "spile_blobs_rounds": "Rounds of collecting since the start; one every `maintain_every` seconds.",
    "spile_blobs_last_refs": "References to contents that the last round dropped after their bodies.",
    "spile_blobs_last_blobs": "Contents that it gave up, as no document names them.",
    "spile_blobs_last_removed": "Copies of contents whose bytes it removed.",
    "spile_blobs_last_damaged": "Contents that were found damaged since it began.",
    "spile_blobs_last_leftovers": "Copies that it removed which crashes had left.",
}

ONLY_AFTER_USE = frozenset(
    {
        *(f"spile_mqtt_{name}" for name in ("connected", "connects", "acknowledged", "unheard")),
        *("spile_mqtt_set_aside", "spile_mqtt_requests_dropped"),
        "spile_requests_served",
        "spile_requests_rejected",
        "spile_http_requests_total",
        "spile_http_request_seconds",
        "spile_publisher_holder",
        "spile_publisher_term",
        "spile_publisher_terms",
        *(f"spile_replications_{name}" for name in ("read", "written", "refused", "retries", "behind")),
        *(name for name in MEANINGS if name.startswith(("spile_maintenance_last_", "spile_blobs_"))),
    }
)
"""Those that a service shows only once there is something to count."""
