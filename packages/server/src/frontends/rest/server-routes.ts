/** The routes about the server itself: roots, help, health, events, executors, the API's description. */
import { createHash, timingSafeEqual } from "node:crypto";
import { StorageError } from "@libstorage/model";
import type { ContentOperation, Health, Operation, ServiceOperation } from "@libstorage/model";
import type { Encoded } from "./encode.js";
import { encode } from "./encode.js";
import { lastEventID, streamEvents } from "./events.js";
import { executorHeaders } from "./executors.js";
import { openAPI } from "./openapi.js";
import type { Exchange } from "./parts.js";
import { redactConfig, redactEnv } from "./redact.js";
import { sendBytes } from "./send.js";

export interface ServerCall {
  readonly exchange: Exchange;
  /** Path variables and query parameters. */
  readonly params: Readonly<Record<string, unknown>>;
}

/** A JSON answer, or undefined when the handler has answered by itself. */
export type ServerAnswer = { readonly status: number; readonly encoded: Encoded } | undefined;

export type ServerOperation = Exclude<Operation, ServiceOperation | ContentOperation>;

/** Those that read their whole body before they answer. */
type Answered = Exclude<ServerOperation, "qmp">;

type Handler = (call: ServerCall) => ServerAnswer | Promise<ServerAnswer>;

function ok(value: unknown, status = 200): ServerAnswer {
  return { status, encoded: encode(value, 0) };
}

/** Absolute, by the host and scheme of the request (section 6.1). */
function urls({ exchange: { req } }: ServerCall, paths: readonly string[]): ServerAnswer {
  const scheme = "encrypted" in req.socket && req.socket.encrypted === true ? "https" : "http";
  const host = req.headers.host ?? "";
  return ok(paths.map((path) => `${scheme}://${host}${path}`));
}

function textParam(call: ServerCall, name: string): string | undefined {
  const value = call.params[name];
  return typeof value === "string" ? value : undefined;
}

/** Hashes have one length, so that the comparison tells nothing of the token. */
function checkAdmin(call: ServerCall): void {
  const token = textParam(call, "admin") ?? "";
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  if (!timingSafeEqual(digest(token), digest(call.exchange.parts.adminToken)))
    throw new StorageError("unauthenticated", "invalid admin token", { token });
}

function isReady({ services }: Health): boolean {
  return Object.values(services).every((service) => service.ready);
}

async function executorAnswer(call: ServerCall): Promise<undefined> {
  const { req, res, executors, headers } = call.exchange;
  const executor = await executors.get(textParam(call, "executor") ?? "");
  sendBytes(req, res, 200, [...headers, ...executorHeaders(executor)], executor.content);
}

const descriptions = new Map<string, Encoded>();

/** The description is made at the first asking: it costs some milliseconds. */
function description(version: string): Encoded {
  let encoded = descriptions.get(version);
  if (encoded === undefined) {
    encoded = encode(openAPI(version), 0);
    descriptions.set(version, encoded);
  }
  return encoded;
}

export const SERVER_HANDLERS: { readonly [Op in Answered]: Handler } = {
  root: (call) =>
    urls(call, ["/executors", "/services", "/snapshots", "/tasks", "/help", "/volumes"]),
  help: (call) => urls(call, ["/help/config", "/help/env", "/help/version"]),
  helpVersion: ({ exchange: { parts } }) => ok(parts.version),
  helpConfig: (call) => {
    checkAdmin(call);
    return ok(redactConfig(call.exchange.parts.config()));
  },
  helpEnv: (call) => {
    checkAdmin(call);
    return ok(redactEnv(call.exchange.parts.env()));
  },
  health: async ({ exchange: { parts } }) => ok(await parts.health()),
  ready: async ({ exchange: { parts } }) => {
    const health = await parts.health();
    return ok(health, isReady(health) ? 200 : 503);
  },
  openapi: ({ exchange: { parts } }) => ({ status: 200, encoded: description(parts.version) }),
  events: async (call) => {
    const { req, res, parts, headers } = call.exchange;
    const after = lastEventID(req.headers["last-event-id"], textParam(call, "lastEventID"));
    headers.push("Content-Type", "text/event-stream", "Cache-Control", "no-store");
    res.writeHead(200, headers);
    await streamEvents(res, {
      feed: parts.events,
      after,
      service: textParam(call, "service"),
      stopping: parts.stopping,
    });
    return undefined;
  },
  executors: async ({ exchange: { executors } }) => ok(await executors.list()),
  executorGet: executorAnswer,
  executorHead: executorAnswer,
};
