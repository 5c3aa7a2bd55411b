/** The REST front-end: one Koa application whose routes are the model's route table. */
import type { IncomingMessage, ServerResponse } from "node:http";
import Koa from "koa";
import { Router } from "@koa/router";
import { ROUTES, StorageError } from "@libstorage/model";
import type { Operation, Route, ServiceOperation } from "@libstorage/model";
import { logAccess } from "./access-log.js";
import type { Caller } from "./auth.js";
import { readBody } from "./body.js";
import { Executors } from "./executors.js";
import { instanceIDsOf, localDevicesOf, transactionOf } from "./headers.js";
import { errorReply, TextError } from "./http-error.js";
import { DEFAULT_LIMITS } from "./parts.js";
import type { RestParts } from "./parts.js";
import { NO_QUERY, Query } from "./query.js";
import { sendBytes, sendJson, sendText } from "./send.js";
import type { HeaderList } from "./send.js";
import { SERVER_HANDLERS } from "./server-routes.js";
import type { ServerOperation } from "./server-routes.js";
import { answerService } from "./service-call.js";

interface Entry {
  readonly operation: Operation;
  readonly route: Route;
}

/** The operations of one method and path; which one it is, an action parameter tells. */
interface Endpoint {
  readonly method: Route["method"];
  readonly path: string;
  readonly entries: Entry[];
}

function endpoints(): Endpoint[] {
  const found = new Map<string, Endpoint>();
  for (const [operation, route] of Object.entries(ROUTES) as [Operation, Route][]) {
    const key = `${route.method} ${route.path}`;
    const endpoint = found.get(key) ?? { method: route.method, path: route.path, entries: [] };
    endpoint.entries.push({ operation, route });
    found.set(key, endpoint);
  }
  return [...found.values()];
}

/** @throws {StorageError} `invalid-argument` when the query names two actions */
function choose(entries: readonly Entry[], query: Query): Entry | undefined {
  if (entries.length === 1 && entries[0]?.route.action === undefined) return entries[0];
  const named = entries.filter(
    ({ route }) => route.action !== undefined && query.hasAction(route.action),
  );
  if (named.length > 1)
    throw new StorageError(
      "invalid-argument",
      `one action at a time: the query names ${named.map(({ route }) => route.action).join(" and ")}`,
    );
  return named[0] ?? entries.find(({ route }) => route.action === undefined);
}

function isServiceOperation(operation: Operation): operation is ServiceOperation {
  return ROUTES[operation].of === "service";
}

function notRouted(req: IncomingMessage, res: ServerResponse): void {
  sendText(req, res, 404, [], "404 page not found");
}

interface Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly parts: RestParts;
  readonly executors: Executors;
}

/** Events tell of every service, so without one named their reader must pass everywhere. */
async function admitToEvents(
  { auth, log }: RestParts,
  caller: Caller,
  query: Query,
): Promise<void> {
  const [service] = query.values("service") ?? [];
  if (service === undefined) await auth.checkAllServices(caller, log);
  else await auth.checkService(caller, service, log);
}

async function serveServer(
  { req, res, parts, executors }: Exchange,
  { operation, route }: Entry & { operation: ServerOperation },
  query: Query,
  path: Readonly<Record<string, string>>,
  headers: HeaderList,
): Promise<void> {
  transactionOf(req);
  if (!parts.auth.isOpen) {
    const caller = await parts.auth.check(req.headers.authorization, parts.log);
    if (operation === "events") await admitToEvents(parts, caller, query);
  }
  instanceIDsOf(req);
  localDevicesOf(req);
  await readBody(req, parts.limits?.bodyBytes ?? DEFAULT_LIMITS.bodyBytes);
  const params = { ...query.paramsOf(route), ...path };
  const answer = await SERVER_HANDLERS[operation]({ req, res, parts, executors, params, headers });
  if (answer !== undefined) await sendJson(req, res, answer.status, headers, answer.encoded);
}

async function serveService(
  { req, res, parts }: Exchange,
  { operation, route }: Entry & { operation: ServiceOperation },
  query: Query,
  path: Readonly<Record<string, string>>,
  headers: HeaderList,
): Promise<void> {
  const answer = await answerService({ req, res, parts, operation, route, query, path });
  if (answer.next !== undefined) headers.push("Link", `<${answer.next}>; rel="next"`);
  if (answer.encoded !== undefined)
    return sendJson(req, res, answer.status, headers, answer.encoded);
  // The reference sends the type of the body that a 204 does not have.
  headers.push("Content-Type", "application/json");
  sendBytes(req, res, answer.status, headers, undefined);
}

function fail({ req, res, parts }: Exchange, headers: HeaderList, error: unknown): void {
  if (res.headersSent) {
    parts.log.error({ error }, "request failed after its answer had begun");
    res.destroy();
    return;
  }
  const { status, code, body } = errorReply(error, parts.log);
  headers.push("Libstorage-Errorcode", code);
  if (error instanceof TextError) {
    sendText(req, res, status, headers, error.message);
    return;
  }
  headers.push("Content-Type", "application/json");
  sendBytes(req, res, status, headers, body);
}

async function serve(
  exchange: Exchange,
  entries: readonly Entry[],
  path: Readonly<Record<string, string>>,
): Promise<void> {
  const { req, res, parts } = exchange;
  const url = req.url ?? "";
  const mark = url.indexOf("?");
  const query = mark < 0 ? NO_QUERY : new Query(url.slice(mark + 1));
  const headers: HeaderList = ["Libstorage-Servername", parts.serverName];
  try {
    const entry = choose(entries, query);
    if (entry === undefined) notRouted(req, res);
    else if (isServiceOperation(entry.operation))
      await serveService(exchange, { ...entry, operation: entry.operation }, query, path, headers);
    else
      await serveServer(exchange, { ...entry, operation: entry.operation }, query, path, headers);
  } catch (error) {
    fail(exchange, headers.slice(0, 2), error);
  }
}

/** Segments are matched decoded, and none may hold a slash; the router matches them encoded. */
function canonical(path: string): string | undefined {
  try {
    const segments = path.split("/").map((segment) => decodeURIComponent(segment));
    if (segments.some((segment) => segment.includes("/"))) return undefined;
    return segments.map(encodeURIComponent).join("/");
  } catch {
    return undefined;
  }
}

/** Where a path with empty or dot segments leads (section 3). */
function cleaned(path: string): string {
  const kept: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") kept.pop();
    else if (segment !== "" && segment !== ".") kept.push(segment);
  }
  const slash = path.endsWith("/") && kept.length > 0 ? "/" : "";
  return `/${kept.join("/")}${slash}`;
}

const UNCLEAN = /\/\/|\/\.{1,2}(?:\/|$)/;

/**
 * Makes the application; `callback()` of it serves any number of listeners.
 * Answers go out through `res` directly, see `send.ts`.
 */
export function createRest(parts: RestParts): Koa {
  const executors = new Executors(parts.executorsFolder);
  const router = new Router({ strict: true, sensitive: true });
  const { accessLog } = parts;
  for (const { method, path, entries } of endpoints())
    router.register(path, [method], (ctx) =>
      serve({ req: ctx.req, res: ctx.res, parts, executors }, entries, ctx.params),
    );
  const app = new Koa();
  app.silent = true;
  app.use((ctx, next) => {
    const { req, res } = ctx;
    ctx.respond = false;
    if (accessLog !== undefined) logAccess(accessLog, req, res);
    const { path } = ctx;
    if (UNCLEAN.test(path)) {
      sendBytes(req, res, 301, ["Location", cleaned(path) + ctx.search], Buffer.alloc(0));
      return undefined;
    }
    if (path.includes("%")) {
      const decoded = canonical(path);
      if (decoded === undefined) return notRouted(req, res);
      ctx.path = decoded;
    }
    // The router would let HEAD into every GET.
    if (req.method === "HEAD" && !path.startsWith("/executors/")) return notRouted(req, res);
    return next();
  });
  app.use(router.routes());
  app.use(({ req, res }) => notRouted(req, res));
  return app;
}
