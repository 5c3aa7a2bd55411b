/** A request's body: bounded bytes → strict JSON → checked members. */
import type { IncomingMessage } from "node:http";
import { parse as locate, printParseErrorCode } from "jsonc-parser";
import type { ParseError } from "jsonc-parser";
import rawBody from "raw-body";
import type * as v from "valibot";
import { StorageError, isDeeperThan } from "@libstorage/model";
import { entriesOf } from "../embedded/check-body.js";
import type { JsonObject } from "../embedded/check-body.js";
import { hasBody } from "./headers.js";
import { TooLarge } from "./http-error.js";
import type { HttpLimits } from "./parts.js";

function isTooLarge(error: unknown): boolean {
  return error instanceof Error && "type" in error && error.type === "entity.too.large";
}

/** @throws {StorageError} `invalid-argument` as soon as the body is known to be too long, or cut off */
export async function readBody(req: IncomingMessage, limitBytes: number): Promise<Buffer> {
  if (!hasBody(req)) return Buffer.alloc(0);
  const announced = req.headers["content-length"];
  try {
    return await rawBody(req, {
      limit: limitBytes,
      ...(announced !== undefined && { length: announced }),
    });
  } catch (error) {
    if (isTooLarge(error)) throw new TooLarge("the request body", limitBytes);
    throw new StorageError(
      "invalid-argument",
      "the request ended before its body did",
      {},
      {
        cause: error,
      },
    );
  }
}

/** A byte order mark is no JSON, so it is not to be swallowed here. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * The object in a body; nothing counts as `{}`.
 * @throws {StorageError} `invalid-argument`, with the byte at which the JSON goes wrong
 */
export function parseObject(body: Buffer, limits: HttpLimits): JsonObject {
  if (body.length === 0) return {};
  const value = parseJson(body);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new StorageError("invalid-argument", "the request body must be a JSON object");
  if (isDeeperThan(value, limits.jsonDepth))
    throw new StorageError(
      "invalid-argument",
      `the request body is nested deeper than ${limits.jsonDepth} levels`,
    );
  return value as JsonObject;
}

function parseJson(body: Buffer): unknown {
  let text: string;
  try {
    text = utf8.decode(body);
  } catch (error) {
    throw new StorageError(
      "invalid-argument",
      "the request body is not UTF-8",
      {},
      {
        cause: error,
      },
    );
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw malformed(text, error);
  }
}

function firstError(text: string): ParseError | undefined {
  const errors: ParseError[] = [];
  try {
    locate(text, errors, { disallowComments: true, allowTrailingComma: false });
  } catch {
    // It calls itself for every level, and endless nesting fills the stack; then the place stays unknown.
  }
  return errors[0];
}

/** V8 does not always say where, so a second parser that does is asked. */
function malformed(text: string, cause: unknown): StorageError {
  const first = firstError(text);
  if (first === undefined)
    return new StorageError("invalid-argument", "the request body is not JSON", {}, { cause });
  const byte = Buffer.byteLength(text.slice(0, first.offset));
  const reason = words(printParseErrorCode(first.error));
  return new StorageError(
    "invalid-argument",
    `the request body is not JSON: ${reason} at byte ${byte}`,
    { byte, reason },
    { cause },
  );
}

/** `PropertyNameExpected` → `property name expected` */
function words(name: string): string {
  return name.replace(/(?<=[a-z])[A-Z]/g, " $&").toLowerCase();
}

/** A number written as text, as `parseRequestOpts` accepts it. */
function asNumber(value: unknown): unknown {
  return typeof value === "string" && /^-?\d{1,16}$/.test(value) ? Number(value) : value;
}

const NUMBERS = new Set(["size", "iops"]);

/**
 * `parseRequestOpts`: members of `opts` replace the request's own, by name without case (section 6.5).
 * @returns the body to check again
 */
export function withOpts(schema: v.GenericSchema, body: JsonObject): JsonObject {
  const { opts } = body as { opts?: unknown };
  if (typeof opts !== "object" || opts === null) return body;
  const names = new Map(
    (entriesOf(schema) ?? [])
      .filter((name) => name !== "opts")
      .map((name) => [name.toLowerCase(), name]),
  );
  const replaced: Record<string, unknown> = { ...body };
  for (const [key, value] of Object.entries(opts)) {
    const name = names.get(key.toLowerCase());
    if (name !== undefined) replaced[name] = NUMBERS.has(name) ? asNumber(value) : value;
  }
  return replaced;
}
