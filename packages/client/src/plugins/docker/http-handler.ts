/** HTTP around the protocol: bodies in, answers out, a time limit and a line in the log for each call. */
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { isDeeperThan, MAX_JSON_DEPTH, StorageError } from "@libstorage/model";
import type { PluginLog } from "../log.js";
import { withTimeLimit } from "../waiting.js";
import { ACTIVATED, CONTENT_TYPE, OPERATIONS, readRequest } from "./protocol.js";
import type { Operation } from "./protocol.js";
import type { VolumeDriver } from "./volume-driver.js";

export interface HandlerOptions {
  readonly driver: VolumeDriver;
  readonly log: PluginLog;
  /** Of calls that look, and of calls that change something. */
  readonly limits: { readonly readMs: number; readonly changeMs: number };
  /** Aborts when the plugin ends without mercy. */
  readonly signal: AbortSignal;
}

const MAX_BODY_BYTES = 1024 * 1024;

type Body =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "too-large" }
  | { readonly kind: "cut" };

async function bodyOf(req: IncomingMessage): Promise<Body> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const part of req as AsyncIterable<Buffer>) {
      size += part.length;
      if (size > MAX_BODY_BYTES) return { kind: "too-large" };
      parts.push(part);
    }
  } catch {
    return { kind: "cut" };
  }
  return { kind: "text", text: Buffer.concat(parts).toString("utf8") };
}

function answer(res: ServerResponse, status: number, type: string, what: string | Buffer): void {
  if (res.destroyed || res.headersSent) return;
  const body = typeof what === "string" ? Buffer.from(`${what}\n`) : what;
  res.writeHead(status, { "Content-Type": type, "Content-Length": body.length });
  res.end(body);
}

function plain(res: ServerResponse, status: number, text: string): void {
  answer(res, status, "text/plain; charset=utf-8", text);
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An abort when the caller has gone, so that nothing is done for nobody. */
function goneSignal(res: ServerResponse): AbortSignal {
  const gone = new AbortController();
  res.once("close", () => {
    if (!res.writableFinished) gone.abort();
  });
  return gone.signal;
}

interface Call {
  readonly path: string;
  readonly operation: Operation;
  readonly value: unknown;
}

/** @returns the call, or undefined when it was answered */
async function readCall(req: IncomingMessage, res: ServerResponse): Promise<Call | undefined> {
  const path = (req.url ?? "/").split("?")[0]?.slice(1) ?? "";
  const operation = Object.hasOwn(OPERATIONS, path) ? OPERATIONS[path] : undefined;
  const isActivate = path === "Plugin.Activate";
  if (operation === undefined && !isActivate) {
    req.resume();
    plain(res, 404, "404 page not found");
    return undefined;
  }
  const body = await bodyOf(req);
  if (body.kind === "cut") return undefined;
  if (body.kind === "too-large") {
    res.setHeader("Connection", "close");
    plain(res, 413, `the request is larger than ${MAX_BODY_BYTES} bytes`);
    return undefined;
  }
  if (isActivate) {
    answer(res, 200, CONTENT_TYPE, ACTIVATED);
    return undefined;
  }
  try {
    const value: unknown = body.text.trim() === "" ? {} : JSON.parse(body.text);
    if (isDeeperThan(value, MAX_JSON_DEPTH)) throw new Error("it is nested too deep");
    return operation === undefined ? undefined : { path, operation, value };
  } catch (error) {
    plain(res, 400, `the request is not JSON: ${textOf(error)}`);
    return undefined;
  }
}

/** Every failure of an operation is 500 with `Err`, which is all that the daemons look at. */
export function openHandler(options: HandlerOptions): RequestListener {
  return (req, res) => {
    // A caller that goes away in the middle is no error of ours.
    res.on("error", () => {});
    handle(req, res, options).catch((error: unknown) => {
      options.log.error({ error: textOf(error) }, "a request could not be answered");
      res.destroy();
    });
  };
}

async function handle(
  req: IncomingMessage,
  res: ServerResponse,
  { driver, log, limits, signal }: HandlerOptions,
): Promise<void> {
  const gone = goneSignal(res);
  const call = await readCall(req, res);
  if (call === undefined) return;
  const { path, operation, value } = call;
  const started = performance.now();
  let fields: object = { op: path };
  try {
    const request = readRequest(value, operation);
    fields = {
      op: path,
      ...(request.Name !== "" && { volume: request.Name }),
      ...(request.ID !== "" && { id: request.ID }),
    };
    const what = request.Name === "" ? path : `${path} of ${request.Name}`;
    const limitMs = operation.kind === "change" ? limits.changeMs : limits.readMs;
    const ended = AbortSignal.any([gone, signal]);
    const result = await withTimeLimit(what, limitMs, ended, (limit) =>
      operation.run(driver, request, { signal: limit }),
    );
    answer(res, 200, CONTENT_TYPE, Buffer.isBuffer(result) ? result : JSON.stringify(result));
    log.info({ ...fields, ms: since(started) }, "done");
  } catch (error) {
    const code = error instanceof StorageError ? error.code : "internal";
    log.warn({ ...fields, ms: since(started), code, error: textOf(error) }, "failed");
    answer(res, 500, CONTENT_TYPE, JSON.stringify({ Err: textOf(error) }));
  }
}

function since(started: number): number {
  return Math.round((performance.now() - started) * 10) / 10;
}
