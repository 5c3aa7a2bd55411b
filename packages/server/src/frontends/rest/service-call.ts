/** A request about storage: from parameters, headers and body to a call of the service, and its answer. */
import type { IncomingMessage, ServerResponse } from "node:http";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { CallContext, Route, ServiceOperation, Task, VolumeService } from "@libstorage/model";
import type { Caller } from "./auth.js";
import { checkBody, parseObject, readBody, withOpts } from "./body.js";
import { viewOf } from "./early-view.js";
import { encode, mapDepthOf } from "./encode.js";
import type { Encoded } from "./encode.js";
import {
  idempotencyKeyOf,
  instanceIDsOf,
  localDevicesOf,
  peerOf,
  transactionOf,
} from "./headers.js";
import { DEFAULT_LIMITS } from "./parts.js";
import type { RestParts } from "./parts.js";
import type { Query } from "./query.js";

export interface ServiceRequest {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly parts: RestParts;
  readonly operation: ServiceOperation;
  readonly route: Route;
  readonly query: Query;
  readonly path: Readonly<Record<string, string>>;
}

export interface ServiceAnswer {
  readonly status: number;
  /** Undefined for a 204. */
  readonly encoded: Encoded | undefined;
  /** Path and query of the next page, when this one is full. */
  readonly next?: string;
}

type LooseCall = (params: object, body: unknown, context: CallContext) => Promise<unknown>;

/** The operation by name; its parameters and body were checked against the route's schemas. */
function call(service: VolumeService, operation: ServiceOperation): LooseCall {
  return (service[operation] as unknown as LooseCall).bind(service);
}

/** The body as the schema has it, and whether `opts` asked for a task (section 6.5). */
async function bodyOf({ req, parts, route }: ServiceRequest): Promise<[unknown, boolean]> {
  const limits = { ...DEFAULT_LIMITS, ...parts.limits };
  const bytes = await readBody(req, limits.bodyBytes);
  if (route.body === undefined) return [undefined, false];
  const object = parseObject(bytes, limits);
  const checked = checkBody(route.body, object);
  if (!parts.parseRequestOpts) return [checked, false];
  const replaced = withOpts(route.body, object);
  const { opts } = object as { opts?: { async?: unknown } };
  return [checkBody(route.body, replaced), opts?.async === true];
}

/** Calls end with their connection; what has begun goes on as a task. */
function signalOf(res: ServerResponse): AbortSignal {
  const controller = new AbortController();
  res.once("close", () => {
    if (!res.writableFinished)
      controller.abort(new StorageError("cancelled", "the caller has gone"));
  });
  return controller.signal;
}

/** The checks that need the service: it exists, and the caller may use it. */
async function admit(request: ServiceRequest, caller: Caller): Promise<Caller> {
  const { parts, path, route, operation } = request;
  const { service } = path;
  if (service === undefined) {
    const isAboutTasks = operation === "tasks" || operation === "taskInspect";
    return isAboutTasks ? caller : parts.auth.checkAllServices(caller, parts.log);
  }
  // Without tokens and body the operation's own first check comes early enough.
  if (!parts.auth.isOpen || route.body !== undefined)
    await parts.service.serviceInspect({ service }, undefined, {});
  return parts.auth.isOpen ? caller : parts.auth.checkService(caller, service, parts.log);
}

/** In the contract's order of checks (section 3). */
export async function answerService(request: ServiceRequest): Promise<ServiceAnswer> {
  const { req, res, parts, operation, route, query, path } = request;
  const tx = transactionOf(req);
  const { auth, log } = parts;
  const stranger: Caller = auth.isOpen
    ? { authorization: undefined }
    : await auth.check(req.headers.authorization, log);
  const instanceIDs = instanceIDsOf(req);
  const localDevices = localDevicesOf(req);
  const caller = await admit(request, stranger);
  const isRead = req.method === "GET";
  const idempotencyKey = isRead ? undefined : idempotencyKeyOf(req);
  const [body, asyncByOpts] = await bodyOf(request);
  const params = { ...query.paramsOf(route), ...path };
  const context = {
    ...(!isRead && { signal: signalOf(res) }),
    ...(instanceIDs.length > 0 && { instanceIDs }),
    ...(localDevices.length > 0 && { localDevices }),
    ...(tx !== undefined && { tx }),
    ...(idempotencyKey !== undefined && { idempotencyKey }),
    who: caller.subject ?? peerOf(req),
    via: "rest",
  };
  const run = (more: Partial<CallContext>): Promise<unknown> =>
    call(parts.service, operation)(params, body, { ...context, ...more });
  const isAsync = route.task && (asyncByOpts || query.isSet("async"));
  const outcome = await waitFor(run, isAsync, parts);
  if ("task" in outcome) return { status: outcome.status, encoded: encode(outcome.task, 0) };
  return replyOf(request, params, outcome.reply);
}

/** A longer time would make Node's timer fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

type Outcome = { readonly reply: unknown } | { readonly task: Task; readonly status: 202 | 408 };

/**
 * Waits for the reply; or, if the caller wants, only for the task; or for the task at most `exeTimeoutMs`.
 * What goes on afterwards is told by the task, so its failure is no surprise here.
 */
function waitFor(
  run: (more: Partial<CallContext>) => Promise<unknown>,
  isAsync: boolean,
  { exeTimeoutMs }: RestParts,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    let newest: Task | undefined;
    const giveUp = (task: Task): void => resolve({ task: newest ?? task, status: 408 });
    const onTask = (task: Task): void => {
      const isFirst = newest === undefined;
      newest = task;
      if (!isFirst) return;
      if (isAsync) resolve({ task, status: 202 });
      else timer = setTimeout(giveUp, Math.min(exeTimeoutMs, MAX_TIMER_MS), task);
    };
    run(isAsync ? { async: true, onTask } : { onTask }).then(
      (reply) => {
        clearTimeout(timer);
        resolve({ reply });
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}

function replyOf(request: ServiceRequest, params: object, reply: unknown): ServiceAnswer {
  const { route, operation, query, parts } = request;
  if (parts.validateResponses === true && !v.is(route.reply, reply))
    throw new Error(`the reply of ${operation} does not fit its schema`);
  if (route.status === 204) return { status: 204, encoded: undefined };
  const [model] = query.values("model") ?? [];
  const shown = model === undefined ? reply : viewOf(operation, model, reply);
  const next = nextPage(request, params, reply);
  const encoded = encode(shown, mapDepthOf(route));
  return { status: route.status, encoded, ...(next !== undefined && { next }) };
}

/** A page is full when it holds as many entries as were asked for. */
function nextPage(request: ServiceRequest, params: object, reply: unknown): string | undefined {
  const { limit } = params as { limit?: number };
  if (limit === undefined || typeof reply !== "object" || reply === null) return undefined;
  const last = lastKeys(reply, mapDepthOf(request.route));
  if (last.count < limit || last.after === undefined) return undefined;
  const [path = "", query = ""] = (request.req.url ?? "").split("?", 2);
  const search = new URLSearchParams(query);
  search.set("after", last.after);
  return `${path}?${search.toString()}`;
}

/** How many objects a list holds, and what names the last of them. */
function lastKeys(reply: object, depth: number): { count: number; after: string | undefined } {
  if (depth < 2) {
    const keys = Object.keys(reply);
    return { count: keys.length, after: keys.at(-1) };
  }
  let count = 0;
  let after: string | undefined;
  for (const [service, map] of Object.entries(reply as Record<string, object>)) {
    const keys = Object.keys(map);
    count += keys.length;
    if (keys.length > 0) after = `${service}/${keys.at(-1)}`;
  }
  return { count, after };
}
