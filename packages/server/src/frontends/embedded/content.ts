/** Content of volumes as streams, over the core in this process. */
import type { Readable } from "node:stream";
import { StorageError, VolumeCreateRequest, contentFormat } from "@libstorage/model";
import type { CallContext, ContentSummary, Params, Volume } from "@libstorage/model";
import type { ChangeStream } from "../../core/contents.js";
import type { ContentDoor, ContentWish } from "../../core/driver.js";
import type { Storage } from "../../core/storage.js";
import { callerOf, newVolume } from "./calls.js";
import { checkBody } from "./check-body.js";
import { ANSWERS } from "./tasks.js";

/** The bytes of an upload. */
export interface UploadBytes {
  /** Destroyed at the end, whatever has happened. */
  readonly bytes: Readable;
  /** In hex; asked for at the end of the bytes. */
  readonly sha256: () => string | undefined;
  readonly lengthBytes?: number;
}

/** What a front-end calls, and a program that embeds the server. @throws {StorageError} */
export interface ContentCalls {
  /** @param open is called before the first byte; what it answers is ended after the last */
  volumeContent(
    params: Params<"volumeContent">,
    open: ContentDoor,
    context: CallContext,
  ): Promise<ContentSummary>;
  snapshotContent(
    params: Params<"snapshotContent">,
    open: ContentDoor,
    context: CallContext,
  ): Promise<ContentSummary>;
  volumeUpload(
    params: Params<"volumeUpload">,
    content: UploadBytes,
    context: CallContext,
  ): Promise<Volume>;
  volumeChanges(params: Params<"volumeChanges">, signal: AbortSignal): ChangeStream;
  snapshotChanges(params: Params<"snapshotChanges">, signal: AbortSignal): ChangeStream;
}

const MAX_HAVE = 1000;

function listOf(text: string | undefined): string[] {
  return (text ?? "").split(",").filter((one) => one !== "");
}

function wishOf(params: { readonly format?: string; readonly have?: string }): ContentWish {
  return {
    formats: listOf(params.format).map(contentFormat),
    have: listOf(params.have).slice(0, MAX_HAVE),
  };
}

function optsOf(text: string | undefined): unknown {
  if (text === undefined || text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new StorageError("invalid-argument", "opts is not JSON", {}, { cause: error });
  }
}

/** Words of the query, as long as the ids of contents can be. */
function idOf(name: string, text: string | undefined): string | undefined {
  if (text === undefined || /^[\w.:-]{1,128}$/.test(text)) return text;
  throw new StorageError("invalid-argument", `${name} is no id of a content`, { [name]: text });
}

export function openContentCalls(storage: Storage): ContentCalls {
  return {
    volumeContent: async ({ service, volumeID, ...wish }, open, context) =>
      storage.service(service).content.volume(volumeID, wishOf(wish), open, callerOf(context)),
    snapshotContent: async ({ service, snapshotID, ...wish }, open, context) =>
      storage.service(service).content.snapshot(snapshotID, wishOf(wish), open, callerOf(context)),
    volumeUpload: async (params, content, context) => {
      const { service, name, format, size, opts } = params;
      const given = { name, size, opts: optsOf(opts) };
      const asked = Object.entries(given).filter(([, value]) => value !== undefined);
      const body = checkBody(VolumeCreateRequest, Object.fromEntries(asked));
      if (format === undefined)
        throw new StorageError(
          "invalid-argument",
          "the format of the content has to be stated (format); it is never found out from its bytes",
        );
      const contentID = idOf("contentID", params.contentID);
      const parentID = idOf("parentID", params.parentID);
      const upload = {
        ...newVolume(body as VolumeCreateRequest),
        ...content,
        format: contentFormat(format),
        ...(contentID !== undefined && { contentID }),
        ...(parentID !== undefined && { parentID }),
      };
      const made = await storage.service(service).content.upload(upload, callerOf(context));
      return ANSWERS.volumeUpload(made);
    },
    volumeChanges: ({ service, volumeID, since }, signal) =>
      storage.service(service).content.volumeChanges(volumeID, since, signal),
    snapshotChanges: ({ service, snapshotID, since }, signal) =>
      storage.service(service).content.snapshotChanges(snapshotID, since, signal),
  };
}
