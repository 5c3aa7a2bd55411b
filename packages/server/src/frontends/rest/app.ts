/** The REST front-end: one Koa application whose routes are the model's route table. */
import type { IncomingMessage, ServerResponse } from "node:http";
import Koa from "koa";
import { ROUTES } from "@libstorage/model";
import type { ContentOperation, Operation, ServiceOperation } from "@libstorage/model";
import { logAccess } from "./access-log.js";
import type { Caller } from "./auth.js";
import { readBody } from "./body.js";
import { serveContent } from "./content.js";
import { Executors } from "./executors.js";
import { headerLines, instanceIDsOf, localDevicesOf, transactionOf } from "./headers.js";
import { errorReply, TextError } from "./http-error.js";
import { DEFAULT_LIMITS } from "./parts.js";
import type { Exchange, RestParts } from "./parts.js";
import { NO_QUERY, Query } from "./query.js";
import { choose, cleaned, match } from "./routing.js";
import type { Entry } from "./routing.js";
import { sendBytes, sendJson, sendText } from "./send.js";
import { serveQmp } from "./qmp.js";
import { SERVER_HANDLERS } from "./server-routes.js";
import type { ServerOperation } from "./server-routes.js";
import { answerService } from "./service-call.js";

function isServiceOperation(operation: Operation): operation is ServiceOperation {
  return ROUTES[operation].of === "service";
}

function isContentOperation(operation: Operation): operation is ContentOperation {
  return ROUTES[operation].of === "content";
}

function notRouted(req: IncomingMessage, res: ServerResponse): void {
  sendText(req, res, 404, [], "404 page not found");
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

async function serveServer(exchange: Exchange, entry: Entry, operation: ServerOperation) {
  const { req, res, parts, query, path, headers } = exchange;
  const lines = headerLines(req);
  transactionOf(lines);
  let caller: Caller = { authorization: undefined };
  if (!parts.auth.isOpen) {
    caller = await parts.auth.check(req.headers.authorization, parts.log);
    if (operation === "events") await admitToEvents(parts, caller, query);
    if (operation === "qmp") caller = await parts.auth.checkAllServices(caller, parts.log);
  }
  instanceIDsOf(lines);
  localDevicesOf(lines);
  if (operation === "qmp") {
    await serveQmp(exchange, caller);
    return;
  }
  await readBody(req, parts.limits?.bodyBytes ?? DEFAULT_LIMITS.bodyBytes);
  const params = { ...query.paramsOf(entry.route), ...path };
  const answer = await SERVER_HANDLERS[operation]({ exchange, params });
  if (answer !== undefined) await sendJson(req, res, answer.status, headers, answer.encoded);
}

async function serveService(exchange: Exchange, { route }: Entry, operation: ServiceOperation) {
  const { req, res, headers } = exchange;
  const answer = await answerService({ exchange, operation, route });
  if (answer.next !== undefined) headers.push("Link", `<${answer.next}>; rel="next"`);
  if (answer.encoded !== undefined) {
    await sendJson(req, res, answer.status, headers, answer.encoded);
    return;
  }
  // The reference sends the type of the body that a 204 does not have.
  headers.push("Content-Type", "application/json");
  sendBytes(req, res, answer.status, headers, undefined);
}

function fail({ req, res, parts }: Exchange, error: unknown): void {
  if (res.headersSent) {
    parts.log.error({ error }, "request failed after its answer had begun");
    res.destroy();
    return;
  }
  const { status, code, body } = errorReply(error, parts.log);
  const headers = ["Libstorage-Servername", parts.serverName, "Libstorage-Errorcode", code];
  if (error instanceof TextError) {
    sendText(req, res, status, headers, error.message);
    return;
  }
  headers.push("Content-Type", "application/json");
  sendBytes(req, res, status, headers, body);
}

async function serve(exchange: Exchange, entries: readonly Entry[]): Promise<void> {
  try {
    const entry = choose(entries, exchange.query);
    if (entry === undefined) notRouted(exchange.req, exchange.res);
    else if (isServiceOperation(entry.operation))
      await serveService(exchange, entry, entry.operation);
    else if (isContentOperation(entry.operation))
      await serveContent(exchange, entry, entry.operation);
    else await serveServer(exchange, entry, entry.operation);
  } catch (error) {
    fail(exchange, error);
  }
}

/** Makes the application; its `callback()` serves any number of listeners. */
export function createRest(parts: RestParts): Koa {
  const executors = new Executors(parts.executorsFolder);
  const { accessLog, serverName } = parts;
  const app = new Koa();
  app.silent = true;
  app.use((ctx) => {
    const { req, res } = ctx;
    // Answers go out through `res`, see `send.ts`.
    ctx.respond = false;
    if (accessLog !== undefined) logAccess(accessLog, req, res);
    const url = req.url ?? "/";
    const mark = url.indexOf("?");
    const path = mark < 0 ? url : url.slice(0, mark);
    const clean = cleaned(path);
    if (clean !== undefined) {
      const location = mark < 0 ? clean : clean + url.slice(mark);
      sendBytes(req, res, 301, ["Location", location], Buffer.alloc(0));
      return undefined;
    }
    const found = match(req.method ?? "", path);
    if (found === undefined) return notRouted(req, res);
    const query = mark < 0 ? NO_QUERY : new Query(url.slice(mark + 1));
    const headers = ["Libstorage-Servername", serverName];
    const exchange = { req, res, parts, executors, query, path: found.path, headers };
    return serve(exchange, found.entries);
  });
  return app;
}
