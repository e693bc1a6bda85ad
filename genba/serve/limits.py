"""Every bound of the server in one frozen value, so that nothing grows without one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a server accepts, holds and waits for."""

    connections: int = 1_024
    head_bytes: int = 16 * 1_024  # request line and header fields of one request
    body_bytes: int = 20 * 1_024 * 1_024  # a photograph, or some dozens of small images
    held_bytes: int = 256 * 1_024 * 1_024  # bodies of all connections that await an answer
    parse_bytes: int = 256 * 1_024  # JSON up to here is parsed on the event loop
    early_bytes: int = 16 * 1_024  # a larger body is only received if it can be answered in time
    skip_bytes: int = 1_024 * 1_024  # of an unwanted body; a longer one ends the connection
    pipelined: int = 64  # requests of one connection that may wait for their answers
    head_s: float = 10.0  # from the first byte of a request to the end of its header fields
    body_s: float = 30.0  # from there to the end of its body
    ping_s: float = 60.0  # between two pings of a gRPC connection that carries nothing else
    idle_s: float = 75.0  # between two requests of a connection
    write_s: float = 30.0  # a client that does not read its answer
    linger_s: float = 1.0  # after a refusal, for a client that is still sending
    request_rows: int = 4_096  # predictions asked for by one request
    request_images: int = 64  # the same for a package that takes images
    queue_rows: int = 8_192  # predictions that may wait for one package
    queue_bytes: int = 64 * 1_024 * 1_024  # and the size of their requests
    queue_talks: int = 256  # answers that may wait for one language model
    queue_tokens: int = 262_144  # and how many tokens they may have, prompts included
    talk_bytes: int = 4 * 1_024 * 1_024  # of one request to a language model
    silent_s: float = 30.0  # a language model that writes nothing for so long is stuck
    batch_rows: int = 256  # predictions computed at once, unless one request has more
    batch_images: int = 16  # images computed at once, whatever a request has
    batch_share: float = 0.05  # of the deadline that one batch may take, if it has several rows
    deadline_s: float = 5.0  # from a request to its answer; beyond it the answer is 504
    talk_s: float = 120.0  # the same of a language line: a long answer takes its time
    longest_deadline_s: float = 300.0  # that a client may ask for
    feedback_rows: int = 10_000
    mask_bytes: int = 4 * 1_024 * 1_024  # of one mask in feedback, as base64 text
    inline_s: float = 0.001  # a package faster than this for one row runs on the event loop,
    stall_s: float = 0.010  # if a full batch is faster than this; longer is a stall of the loop
    stalls: int = 3  # after so many in a row the package moves to a thread of its own
    capture_rows: int = 131_072  # predictions held in memory until they are written
    slow_s: float = 1.0  # a request that takes longer is logged, so many a second
    capture_bytes: int = 128 * 1_024 * 1_024  # and their inputs
    capture_s: float = 0.9  # between two hand-overs to the writer
    poll_s: float = 0.1  # between two looks at the ledger for deployments
    keys_s: float = 0.5  # the same for keys
    sweep_s: float = 0.25  # between two looks at all connections
    expire_s: float = 0.05  # between two looks at the deadlines of requests; it costs microseconds
    cores: int = 0  # that a package may use; 0 means all that this process may
    threads: int = 0  # that compute, for all packages together; 0 means one more than cores
    spare_threads: int = 8  # in the place of threads that hang in an engine
    stuck_s: float = 5.0  # a batch takes longer, and ten times what was expected: it is stuck
    drain_s: float = 10.0  # after SIGTERM, for the requests that are being answered
    memory_bytes: int = 0  # of all packages in memory; 0 means half of what the machine has
    stay_s: float = 20.0  # a package that was loaded or asked is not put to sleep before
    trial_s: float = 60.0  # for the first load of a package, in a child process; 0 tries none
    leak_s: float = 0.1  # of it, to see whether memory grows with every batch
    suspect_s: float = 3.0  # the same for a package that is suspected in service
    hang_s: float = 20.0  # the event loop does not come back for so long: the process ends itself
    crashes: int = 2  # of its own within a day, until a stable package is not loaded any more
