/** A libStorage server as a `VolumeService`: methods, paths and replies come from the route table. */
import { randomUUID } from "node:crypto";
import * as v from "valibot";
import { formatAddress, ROUTES, StorageError } from "@libstorage/model";
import type {
  Body,
  CallContext,
  ContentOperation,
  Operation,
  Params,
  Reply,
  Route,
  ServiceOperation,
  StorageEvent,
  Task,
  VolumeService,
} from "@libstorage/model";
import { readEvents } from "./event-stream.js";
import type { EventOptions } from "./event-stream.js";
import { AnswerMemory } from "./answer-memory.js";
import { openContentClient } from "./content.js";
import type { ContentClient } from "./content.js";
import { failureOfReply } from "./http-failure.js";
import type { HttpReply } from "./http-failure.js";
import { isWrite, requestOf } from "./http-request.js";
import type { HttpRequest } from "./http-request.js";
import { isTask, waitForTask } from "./task-wait.js";
import { asked, openTransport } from "./transport.js";
import type { Transport, TransportOptions } from "./transport.js";

export interface ClientOptions extends TransportOptions {
  /** A JWT, sent as is. */
  readonly token?: string;
  /** Whether replies are checked against the model. Default true. */
  readonly checkReplies?: boolean;
  /**
   * Whether answers to reads are kept, and the server is asked only if they have changed. One that has not
   * is the same object again, which nobody may change. Default false.
   */
  readonly remembers?: boolean;
}

type ServerOperation = Exclude<Operation, ServiceOperation | ContentOperation>;
type ByteOperation = "events" | "executorGet" | "executorHead" | "qmp";

/** The operations about the server itself that answer JSON. */
export type ServerCalls = {
  readonly [Op in Exclude<ServerOperation, ByteOperation>]: (
    params: Params<Op>,
    body: Body<Op>,
    context: CallContext,
  ) => Promise<Reply<Op>>;
};

export interface Client extends VolumeService, ServerCalls, ContentClient {
  /** The server's address, for people. */
  readonly address: string;
  /** Changes as they happen, until the signal aborts; a broken connection is made anew. */
  events(options?: EventOptions): AsyncGenerator<StorageEvent, void>;
  /** An executor's bytes. @throws {StorageError} `not-found` */
  executorGet(params: { readonly executor: string }, context: CallContext): Promise<Buffer>;
  /** Closes the kept connections. Calls under way fail. */
  close(): void;
}

type Call = (params: object, body: unknown, context: CallContext) => Promise<unknown>;

/** How one operation is carried out: the request, its repeats, the waiting for its task. */
class Caller {
  readonly transport: Transport;
  readonly #options: ClientOptions;
  readonly server: string;
  #knowsKeys: Promise<boolean> | undefined;
  readonly #memory = new AnswerMemory();

  constructor(options: ClientOptions) {
    this.#options = options;
    this.transport = openTransport(options);
    this.server = formatAddress(this.transport.address);
  }

  request(route: Route, params: object, body: unknown, context: CallContext): HttpRequest {
    const { token } = this.#options;
    return requestOf(route, { ...params }, body, context, {
      tx: context.tx ?? { txID: randomUUID(), txCR: Math.floor(Date.now() / 1000) },
      idempotencyKey: context.idempotencyKey ?? randomUUID(),
      ...(token !== undefined && { token }),
    });
  }

  async call(
    operation: Operation,
    params: object,
    body: unknown,
    context: CallContext,
  ): Promise<unknown> {
    const route: Route = ROUTES[operation];
    const request = this.request(route, params, body, context);
    const known = this.#options.remembers === true ? this.#memory.of(route, request) : undefined;
    const reply = await this.transport.send(known?.asking ?? request, {
      signal: context.signal,
      isRepeatable: async () => !isWrite(route) || (await this.#serverKnowsKeys()),
    });
    const { status } = reply;
    if (status === 304 && known?.value !== undefined) return known.value;
    if (status !== 202 && status !== 408 && (status < 200 || status > 299))
      throw failureOfReply(reply, asked(request), this.server);
    const value = this.#json(reply, request);
    const isUnfinished = (status === 202 || status === 408) && route.task;
    if (!isUnfinished) {
      const checked = this.#checked(operation, route, value);
      known?.keep(reply.headers["etag"], checked);
      return checked;
    }
    if (!isTask(value)) throw failureOfReply(reply, asked(request), this.server);
    const inspect = (taskID: string): Promise<Task> => this.#inspectTask(taskID, context);
    return this.#checked(operation, route, await waitForTask(value, inspect, context));
  }

  /** An empty body stands for null, as a removal has it. */
  #json(reply: HttpReply, request: HttpRequest): unknown {
    if (reply.text === "") return null;
    try {
      return JSON.parse(reply.text);
    } catch (error) {
      throw new StorageError(
        "internal",
        `the answer of ${this.server} to ${asked(request)} is not JSON: is it a libStorage server?`,
        { server: this.server },
        { cause: error },
      );
    }
  }

  /** What the schema does not know is kept, so that `--json` shows all that the server said. */
  #checked(operation: Operation, route: Route, value: unknown): unknown {
    if (this.#options.checkReplies === false || route.of === "server") return value;
    if (route.status === 204) return null;
    const result = v.safeParse(route.reply, value, { abortEarly: true });
    // The validator takes a list for a map.
    const isMapExpected = route.reply.type === "record";
    if (result.success && !(isMapExpected && Array.isArray(value))) return value;
    const issue = result.issues?.[0] ?? {
      message: "Invalid type: Expected Object but received Array",
    };
    const path = (result.issues && v.getDotPath(result.issues[0])) ?? "the whole";
    throw new StorageError(
      "internal",
      `the answer of ${this.server} to ${operation} is not what the API says: ${path}: ${issue.message}`,
      { server: this.server },
    );
  }

  async #inspectTask(taskID: string, context: CallContext): Promise<Task> {
    const { instanceIDs: _ids, localDevices: _devices, idempotencyKey: _key, ...rest } = context;
    const task = await this.call("taskInspect", { taskID }, undefined, rest);
    return task as Task;
  }

  /**
   * Whether the server answers a repeated write with its first answer. Servers of the reference do not;
   * they do not know this route either.
   */
  #serverKnowsKeys(): Promise<boolean> {
    this.#knowsKeys ??= this.transport
      .send(this.request(ROUTES.health, {}, undefined, {}), {
        signal: undefined,
        isRepeatable: async () => true,
      })
      .then(
        ({ status }) => status !== 404,
        () => {
          // Nobody answers now; ask again next time.
          this.#knowsKeys = undefined;
          return true;
        },
      );
    return this.#knowsKeys;
  }
}

/** @throws {StorageError} `invalid-argument` for an address that is none; connects with the first call */
export function openClient(options: ClientOptions): Client {
  const caller = new Caller(options);
  const calls: Record<string, Call> = {};
  for (const operation of Object.keys(ROUTES) as Operation[])
    calls[operation] = (params, body, context) => caller.call(operation, params, body, context);
  const content = openContentClient({
    transport: caller.transport,
    server: caller.server,
    request: (operation, params, context) =>
      caller.request(ROUTES[operation], params, undefined, context),
  });
  const client = {
    ...calls,
    ...content,
    address: caller.server,
    events: (events: EventOptions = {}) =>
      readEvents((last, signal) => openEvents(caller, events, last, signal), events),
    executorGet: async (params: { readonly executor: string }, context: CallContext) => {
      const request = caller.request(ROUTES.executorGet, params, undefined, context);
      const reply = await caller.transport.download(request, context.signal);
      if (reply.status !== 200) throw failureOfReply(reply, asked(request), caller.server);
      return reply.bytes;
    },
    close: () => caller.transport.close(),
  };
  // The loop above makes every method the type names; the compiler cannot follow it.
  return client as unknown as Client;
}

async function openEvents(
  caller: Caller,
  { service }: EventOptions,
  last: number | undefined,
  signal: AbortSignal,
): ReturnType<Transport["stream"]> {
  const request = caller.request(ROUTES.events, { service }, undefined, {});
  const headers = {
    ...request.headers,
    ...(last !== undefined && { "Last-Event-ID": String(last) }),
  };
  const reply = await caller.transport.stream({ ...request, headers }, signal);
  if (reply.status === 200) return reply;
  let text = "";
  for await (const chunk of reply.stream) text += String(chunk);
  throw failureOfReply({ ...reply, text }, asked(request), caller.server);
}
