/** A request about storage: from parameters, headers and body to a call of the service, and its answer. */
import type { ServerResponse } from "node:http";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { CallContext, Route, ServiceOperation, Task, VolumeService } from "@libstorage/model";
import { checkBody } from "../embedded/check-body.js";
import type { Caller } from "./auth.js";
import { parseObject, readBody, withOpts } from "./body.js";
import { viewOf } from "./early-view.js";
import { encode, mapDepthOf } from "./encode.js";
import type { Encoded } from "./encode.js";
import {
  hasBody,
  headerLines,
  idempotencyKeyOf,
  instanceIDsOf,
  localDevicesOf,
  peerOf,
  transactionOf,
} from "./headers.js";
import type { HeaderLines } from "./headers.js";
import { DEFAULT_LIMITS } from "./parts.js";
import type { Exchange, RestParts } from "./parts.js";
import { NO_QUERY } from "./query.js";

/** What a request brings along; `exchange` is the same object for its whole life. */
export interface ServiceRequest {
  readonly exchange: Exchange;
  readonly operation: ServiceOperation;
  readonly route: Route;
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

/** The body as the schema has it, or undefined for a route without one. */
async function bodyOf({ exchange: { req, parts }, route }: ServiceRequest): Promise<unknown> {
  const limits = { ...DEFAULT_LIMITS, ...parts.limits };
  const bytes = await readBody(req, limits.bodyBytes);
  if (route.body === undefined) return undefined;
  const object = parseObject(bytes, limits);
  const checked = checkBody(route.body, object);
  return parts.parseRequestOpts ? checkBody(route.body, withOpts(route.body, object)) : checked;
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

const STRANGER: Caller = { authorization: undefined };

/** The checks that need the service: it exists, and the caller may use it. */
async function admit(request: ServiceRequest, caller: Caller): Promise<Caller> {
  const { exchange, route, operation } = request;
  const { parts } = exchange;
  const { service } = exchange.path;
  if (service === undefined) {
    const isAboutTasks = operation === "tasks" || operation === "taskInspect";
    return isAboutTasks ? caller : parts.auth.checkAllServices(caller, parts.log);
  }
  // Without tokens and body the operation's own first check comes early enough.
  if (!parts.auth.isOpen || route.body !== undefined)
    await parts.service.serviceInspect({ service }, undefined, {});
  return parts.auth.isOpen ? caller : parts.auth.checkService(caller, service, parts.log);
}

/** Who copies into another service must be allowed to use that one, too. */
async function admitToTarget(
  body: unknown,
  caller: Caller,
  { auth, log }: RestParts,
): Promise<Caller> {
  if (typeof body !== "object" || body === null || !("service" in body)) return caller;
  const { service } = body;
  return typeof service === "string" ? auth.checkService(caller, service, log) : caller;
}

/** In the contract's order of checks (section 3). */
export async function answerService(request: ServiceRequest): Promise<ServiceAnswer> {
  const { exchange, operation, route } = request;
  const { req, parts, query, path } = exchange;
  const lines = headerLines(req);
  const tx = transactionOf(lines);
  const { auth, log } = parts;
  let caller: Caller = auth.isOpen ? STRANGER : await auth.check(req.headers.authorization, log);
  const instanceIDs = instanceIDsOf(lines);
  const localDevices = localDevicesOf(lines);
  const isRead = req.method === "GET";
  if (!isRead || !auth.isOpen) caller = await admit(request, caller);
  const body = isRead && !hasBody(req) ? undefined : await bodyOf(request);
  if (!auth.isOpen) caller = await admitToTarget(body, caller, parts);
  const params = query === NO_QUERY ? path : { ...query.paramsOf(route), ...path };
  const isAsync = route.task && (query.isSet("async") || isAsyncByOpts(request, body));
  const context: Mutable<CallContext> = { who: caller.subject ?? peerOf(req), via: "rest" };
  if (instanceIDs.length > 0) context.instanceIDs = instanceIDs;
  if (localDevices.length > 0) context.localDevices = localDevices;
  if (tx !== undefined) context.tx = tx;
  if (!isRead) forWrite(context, lines, exchange);
  const act = call(parts.service, operation);
  // A read is answered from memory and has no task, unless one is asked for.
  if (isRead && !isAsync) return replyOf(request, params, await act(params, body, context));
  const run = (more: Partial<CallContext>): Promise<unknown> =>
    act(params, body, { ...context, ...more });
  const outcome = await waitFor(run, isAsync, parts.exeTimeoutMs);
  if ("task" in outcome) return { status: outcome.status, encoded: encode(outcome.task, 0) };
  return replyOf(request, params, outcome.reply);
}

/** Object spreads are most of a small read's cost, so a context is filled member by member. */
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function forWrite(context: Mutable<CallContext>, lines: HeaderLines, { req, res }: Exchange): void {
  context.signal = signalOf(res);
  const key = idempotencyKeyOf(lines);
  if (key !== undefined) context.idempotencyKey = key;
  if (req.headers["if-none-match"]?.trim() === "*") context.onlyIfNew = true;
}

/** Whether `opts` asks for a task, which counts with `parseRequestOpts` only. */
function isAsyncByOpts({ exchange: { parts } }: ServiceRequest, body: unknown): boolean {
  if (!parts.parseRequestOpts || typeof body !== "object" || body === null) return false;
  const { opts } = body as { opts?: Readonly<Record<string, unknown>> };
  return Object.entries(opts ?? {}).some(
    ([key, value]) => key.toLowerCase() === "async" && (value === true || value === "true"),
  );
}

/** Node's timers know no shorter time; who sets one wants no waiting at all. */
const MIN_TIMER_MS = 1;
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
  exeTimeoutMs: number,
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
      else if (exeTimeoutMs < MIN_TIMER_MS) giveUp(task);
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
  const { route, operation } = request;
  const { query, parts } = request.exchange;
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
  const [path = "", query = ""] = (request.exchange.req.url ?? "").split("?", 2);
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
