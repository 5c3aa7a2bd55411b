/**
 * Replies as bytes. The service answers the same frozen object while nothing changed, so bytes, tag and
 * compressed form are kept beside the object and live as long as it does.
 */
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import {
  ServiceSnapshotMap,
  ServiceVolumeMap,
  SnapshotMap,
  VolumeMap,
  wireJson,
} from "@libstorage/model";
import type { Route } from "@libstorage/model";

const compress = promisify(gzip);

/** Below this, compressing costs more than it saves. */
const MIN_GZIP_BYTES = 1024;

export class Encoded {
  readonly body: Buffer;
  #etag: string | undefined;
  #gzip: Promise<Buffer> | undefined;

  constructor(text: string) {
    this.body = Buffer.from(text);
  }

  /** Weak, because the plain and the compressed form share it. */
  get etag(): string {
    this.#etag ??= `W/"${createHash("sha1").update(this.body).digest("base64url")}"`;
    return this.#etag;
  }

  get isCompressible(): boolean {
    return this.body.length > MIN_GZIP_BYTES;
  }

  compressed(): Promise<Buffer> {
    this.#gzip ??= compress(this.body);
    return this.#gzip;
  }
}

/** How many maps a reply nests around its objects; the objects' texts are kept one by one. */
export type MapDepth = 0 | 1 | 2;

export function mapDepthOf(route: Route): MapDepth {
  if (route.reply === VolumeMap || route.reply === SnapshotMap) return 1;
  if (route.reply === ServiceVolumeMap || route.reply === ServiceSnapshotMap) return 2;
  return 0;
}

const replies = new WeakMap<object, Encoded>();

export function encode(value: unknown, depth: MapDepth): Encoded {
  // What may still change is not kept.
  if (typeof value !== "object" || value === null || !Object.isFrozen(value))
    return new Encoded(textOf(value, depth, 0));
  let encoded = replies.get(value);
  if (encoded === undefined) {
    encoded = new Encoded(textOf(value, depth, 0));
    replies.set(value, encoded);
  }
  return encoded;
}

/** One indented text per object, or map of objects, and nesting level it was needed at. */
const texts: readonly WeakMap<object, string>[] = [new WeakMap(), new WeakMap(), new WeakMap()];

function textOf(value: unknown, mapDepth: number, indent: number): string {
  if (typeof value !== "object" || value === null) return indented(value, indent);
  const make = (): string =>
    mapDepth > 0 ? mapText(value, mapDepth, indent) : indented(value, indent);
  const cache = texts[indent];
  // A whole reply is kept as bytes already.
  if (cache === undefined || (mapDepth > 0 && indent === 0) || !Object.isFrozen(value))
    return make();
  let text = cache.get(value);
  if (text === undefined) {
    text = make();
    cache.set(value, text);
  }
  return text;
}

function indented(value: unknown, indent: number): string {
  const text = wireJson(value);
  return indent === 0 ? text : text.replaceAll("\n", `\n${"  ".repeat(indent)}`);
}

function mapText(map: object, mapDepth: number, indent: number): string {
  const inner = "  ".repeat(indent + 1);
  const members = Object.entries(map).map(
    ([key, value]) => `${inner}${wireJson(key)}: ${textOf(value, mapDepth - 1, indent + 1)}`,
  );
  if (members.length === 0) return "{}";
  return `{\n${members.join(",\n")}\n${"  ".repeat(indent)}}`;
}
