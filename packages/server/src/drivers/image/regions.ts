/** Where the bytes of a disk are, as `qemu-img map` tells it, line by line: no list of it is ever whole in memory. */
import { PassThrough } from "node:stream";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { layersBelow } from "../../images/layers.js";
import { mapArguments, meaningOf } from "./qemu-img.js";
import type { Image } from "./qemu-img.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";

/** A stretch of a disk: zeros, or bytes at a place in a file. */
export interface Region {
  readonly start: number;
  readonly length: number;
  readonly at?: { readonly file: string; readonly offset: number };
}

const Line = v.object({
  start: v.number(),
  length: v.number(),
  depth: v.number(),
  zero: v.boolean(),
  data: v.boolean(),
  offset: v.optional(v.number()),
});

/** Regions in ascending order, without gaps. */
export async function* regionsOf(image: Image, context: OpContext): AsyncGenerator<Region, void> {
  const files = [image.path, ...layersBelow(image.path)];
  const over = new AbortController();
  const signal = AbortSignal.any([context.signal, over.signal]);
  const to = new PassThrough();
  // It may fail while nobody reads it; whoever reads next is told.
  to.on("error", () => {});
  const options = { timeoutMs: NO_TIME_LIMIT_MS, to };
  const mapping = context.exec("qemu-img", mapArguments(image), signal, options).then(
    () => void to.end(),
    (error: unknown) => void to.destroy(meaningOf(error, image) as Error),
  );
  try {
    for await (const line of linesOf(to)) {
      const text = line.replace(/^\[/, "").replace(/[\],]+$/, "");
      if (text !== "") yield regionOf(text, files);
    }
  } finally {
    over.abort();
    to.destroy();
    await mapping;
  }
}

async function* linesOf(stream: PassThrough): AsyncGenerator<string, void> {
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + String(chunk)).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  yield rest;
}

function regionOf(text: string, files: readonly string[]): Region {
  const { start, length, depth, zero, data, offset } = v.parse(Line, JSON.parse(text));
  if (zero || !data) return { start, length };
  const file = files[depth];
  if (file !== undefined && offset !== undefined) return { start, length, at: { file, offset } };
  throw new StorageError(
    "failed-precondition",
    `the image ${files[0]} is compressed or encrypted at ${start}, so that its parts cannot be compared; convert it first`,
    { path: files[0] },
  );
}
