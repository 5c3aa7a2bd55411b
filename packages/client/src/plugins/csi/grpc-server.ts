/**
 * Serves handlers over gRPC on a Unix socket. Every call has a time limit, a line in the log that names no
 * secret, and an answer with the exact status; a call without a handler is UNIMPLEMENTED.
 */
import { createServer } from "node:net";
import type { Server as NetServer, Socket } from "node:net";
import { Server, ServerCredentials, status } from "@grpc/grpc-js";
import type {
  sendUnaryData,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { StorageError } from "@libstorage/model";
import type { PluginLog } from "../log.js";
import { listenOnSocket } from "../socket-file.js";
import { withTimeLimit } from "../waiting.js";
import type { CallName, Handlers } from "./messages.js";
import { loadServices, SERVICES } from "./proto.js";
import type { ServiceName } from "./proto.js";
import { CsiError, statusOf, textOf } from "./status.js";

export interface ServingOptions {
  readonly handlers: Handlers;
  /** Services that are there at all; calls of the others are answered as of a server that has none. */
  readonly services: readonly ServiceName[];
  readonly log: PluginLog;
  readonly changeMs: number;
  readonly readMs: number;
  /** Ends what is under way. */
  readonly signal: AbortSignal;
}

export interface GrpcServer {
  readonly path: string;
  /** Takes no more calls, lets those that run end for `graceMs`, then cuts them. */
  close(graceMs: number): Promise<void>;
}

/** Requests are small; what is larger is refused before it is read. */
const MAX_REQUEST_BYTES = 4 * 1024 * 1024;
const MAX_CONNECTIONS = 128;
const MAX_CALLS_PER_CONNECTION = 256;

type LooseHandler = (request: object, signal: AbortSignal) => Promise<object>;
type LooseStream = (request: object, signal: AbortSignal) => AsyncIterable<object>;

const READS = /^(?:Get|List|Probe|Validate|Controller\w*Get|NodeGet|GroupControllerGet)/;

/** What of a request may stand in the log: ids and paths, never secrets, flags or contexts. */
const LOGGED = [
  "name",
  "volumeId",
  "sourceVolumeId",
  "snapshotId",
  "groupSnapshotId",
  "nodeId",
  "stagingTargetPath",
  "targetPath",
  "volumePath",
  "readonly",
] as const;

const MAX_LOGGED = 300;

function loggable(request: Readonly<Record<string, unknown>>): object {
  return Object.fromEntries(
    LOGGED.flatMap((key) => {
      const value = request[key];
      if (value === undefined || value === "" || value === false) return [];
      return [[key, typeof value === "string" ? value.slice(0, MAX_LOGGED) : value]];
    }),
  );
}

class Calls {
  readonly #options: ServingOptions;
  readonly #running = new Set<Promise<unknown>>();

  constructor(options: ServingOptions) {
    this.#options = options;
  }

  implementation(service: ServiceName, definition: object): UntypedServiceImplementation {
    const calls = Object.entries(definition as Record<string, { responseStream: boolean }>);
    return Object.fromEntries(
      calls.map(([name, { responseStream }]) => [
        name,
        responseStream ? this.#stream(name as CallName) : this.#unary(name as CallName, service),
      ]),
    );
  }

  /** Resolves once nothing runs any more. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  #handler(name: CallName): LooseHandler | LooseStream {
    const handler = this.#options.handlers[name] as LooseHandler | LooseStream | undefined;
    if (handler !== undefined) return handler;
    throw new CsiError("UNIMPLEMENTED", `${name} is not implemented by this plugin in its mode`);
  }

  #unary(name: CallName, service: ServiceName) {
    return (call: ServerUnaryCall<object, object>, answer: sendUnaryData<object>): void => {
      const isRead = service === "Identity" || READS.test(name);
      void this.#noted(name, call.request, async () => {
        const { changeMs, readMs, signal } = this.#options;
        const handler = this.#handler(name) as LooseHandler;
        // A caller that goes away ends nothing: half a change is worse than one it does not hear of.
        return withTimeLimit(name, isRead ? readMs : changeMs, signal, (limit) =>
          handler(call.request, limit),
        );
      }).then(
        (reply) => answer(null, reply),
        (error: unknown) => answer(failure(error)),
      );
    };
  }

  #stream(name: CallName) {
    return (call: ServerWritableStream<object, object>): void => {
      void this.#noted(name, call.request, async () => {
        const handler = this.#handler(name) as LooseStream;
        const { readMs, signal } = this.#options;
        await withProgress(name, readMs, [signal, goneOf(call)], async (limit, progress) => {
          // Leaving the loop ends the handler.
          for await (const message of handler(call.request, limit)) {
            if (limit.aborted) return;
            if (!call.write(message)) await drained(call, limit);
            progress();
          }
        });
        return {};
      }).then(
        () => call.end(),
        (error: unknown) => call.emit("error", failure(error)),
      );
    };
  }

  /** One line per call. */
  async #noted(name: CallName, request: object, act: () => Promise<object>): Promise<object> {
    const { log } = this.#options;
    const started = performance.now();
    const fields = { call: name, ...loggable(request as Record<string, unknown>) };
    const running = act();
    this.#running.add(running);
    const ms = (): number => Math.round(performance.now() - started);
    try {
      const reply = await running;
      log.info({ ...fields, ms: ms() }, "done");
      return reply;
    } catch (error) {
      const code = statusOf(error);
      const isOurs = error instanceof CsiError || error instanceof StorageError;
      const text =
        isOurs || !(error instanceof Error) ? textOf(error) : (error.stack ?? error.message);
      log[code === "INTERNAL" ? "error" : "warn"](
        { ...fields, ms: ms(), code, error: text },
        "failed",
      );
      throw error;
    } finally {
      this.#running.delete(running);
    }
  }
}

/** Aborts when the caller cancels the call, or its connection ends. */
function goneOf(call: ServerWritableStream<object, object>): AbortSignal {
  const gone = new AbortController();
  for (const event of ["cancelled", "close", "error"]) call.once(event, () => gone.abort());
  if (call.cancelled) gone.abort();
  return gone.signal;
}

/** Resolves when the caller has read enough to be sent more, or `ended` aborts. */
function drained(call: ServerWritableStream<object, object>, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.off("drain", done);
      ended.removeEventListener("abort", done);
      resolve();
    };
    call.once("drain", done);
    ended.addEventListener("abort", done, { once: true });
    if (ended.aborted) done();
  });
}

/**
 * A stream may be long, but each of its steps is not.
 * @param ends what else ends it
 * @throws {CsiError} DEADLINE_EXCEEDED when `progress` is not called for so long
 */
async function withProgress(
  name: CallName,
  limitMs: number,
  ends: readonly AbortSignal[],
  act: (limit: AbortSignal, progress: () => void) => Promise<void>,
): Promise<void> {
  const stalled = new AbortController();
  const timer = setTimeout(() => stalled.abort(), limitMs);
  const tooLate = (cause?: unknown): CsiError =>
    new CsiError(
      "DEADLINE_EXCEEDED",
      `${name} made no progress for ${limitMs / 1000} s: its caller does not read, or the server does not answer; call it again from the last offset`,
      { cause },
    );
  try {
    await act(AbortSignal.any([...ends, stalled.signal]), () => timer.refresh());
  } catch (error) {
    throw stalled.signal.aborted ? tooLate(error) : error;
  } finally {
    clearTimeout(timer);
  }
  if (stalled.signal.aborted) throw tooLate();
}

function failure(error: unknown): { code: status; details: string } {
  return { code: status[statusOf(error)], details: textOf(error) };
}

/** @throws {StorageError} when it cannot listen */
export async function serveGrpc(path: string, options: ServingOptions): Promise<GrpcServer> {
  const definitions = loadServices();
  const calls = new Calls(options);
  const server = new Server({
    "grpc.max_receive_message_length": MAX_REQUEST_BYTES,
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": MAX_CALLS_PER_CONNECTION,
    "grpc.enable_channelz": 0,
  });
  for (const name of SERVICES.filter((one) => options.services.includes(one)))
    server.addService(definitions[name], calls.implementation(name, definitions[name]));
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const open = new Set<Socket>();
  const door = createServer((socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    // What a stranger sends may end its connection, and nothing else.
    socket.on("error", () => socket.destroy());
    injector.injectConnection(socket);
  });
  door.maxConnections = MAX_CONNECTIONS;
  await listenOnSocket(door, path);
  return {
    path,
    async close(graceMs) {
      const closed = closing(door);
      injector.drain(graceMs);
      let timer: NodeJS.Timeout | undefined;
      const tooLate = new Promise<void>((resolve) => (timer = setTimeout(resolve, graceMs)));
      await Promise.race([calls.idle(), tooLate]);
      clearTimeout(timer);
      injector.destroy();
      server.forceShutdown();
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

function closing(door: NetServer): Promise<void> {
  return new Promise((resolve) => door.close(() => resolve()));
}
