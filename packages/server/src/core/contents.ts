/**
 * Content of volumes and snapshots as streams: out of a service, into a new volume of one, and the stretches
 * that have changed. What comes in is shown only when it is whole and has the digest that was stated.
 */
import type { Readable, Writable } from "node:stream";
import { finished } from "node:stream/promises";
import { StorageError, formatSize } from "@libstorage/model";
import type { ContentFormat, ContentSummary, VolumeExtent } from "@libstorage/model";
import { heldByOther } from "./access.js";
import type { Creations, NewVolume } from "./creations.js";
import type {
  ContentDoor,
  ContentIn,
  ContentWish,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "./driver.js";
import { lockKeyOf } from "./locks.js";
import type { Logger } from "./log.js";
import { MeteredBytes } from "./metered-bytes.js";
import type { Names } from "./names.js";
import type { Caller, Operations, Work } from "./operations.js";
import { unable, usable } from "./refusals.js";

/** Content that somebody sends. */
export interface Upload extends NewVolume {
  readonly format: ContentFormat;
  readonly bytes: Readable;
  /** In hex; asked for when all bytes are there, since it may come after them. */
  readonly sha256: () => string | undefined;
  /** How many bytes there will be, when it is known. */
  readonly lengthBytes?: number;
  readonly contentID?: string;
  readonly parentID?: string;
}

/** What of the service this needs. */
interface Service {
  readonly name: string;
  readonly driver: StorageDriver;
  volume(id: string): VolumeRecord;
  snapshot(id: string): SnapshotRecord;
  normalized(id: string): string;
}

/** Stretches of a volume, and what they are stretches of. */
export interface ChangeStream {
  readonly sizeBytes: number;
  readonly extents: AsyncIterable<VolumeExtent>;
}

export class Contents {
  readonly #service: Service;
  readonly #creations: Creations;
  readonly #names: Names;
  readonly #operations: Operations;
  readonly #log: Logger;

  constructor(
    service: Service,
    creations: Creations,
    names: Names,
    operations: Operations,
    log: Logger,
  ) {
    this.#service = service;
    this.#creations = creations;
    this.#names = names;
    this.#operations = operations;
    this.#log = log;
  }

  get formats(): readonly ContentFormat[] {
    return this.#service.driver.content?.formats ?? [];
  }

  /** Contents that increments can build on, by their ids. */
  kept(): readonly string[] {
    return this.#service.driver.content?.kept?.() ?? [];
  }

  /** @param open is called before the first byte; what it answers is ended after the last */
  volume(id: string, wish: ContentWish, open: ContentDoor, caller: Caller) {
    return this.#read("volumeContent", id, wish, caller, (own) => {
      const volume = usable(this.#service.volume(own));
      const content = this.#abilities(wish);
      if (volume.attachments.length > 0 && !content.canReadHeld)
        throw heldByOther(volume, "read", "detach it first, or read a snapshot of it");
      return this.#reading({ volumeID: volume.id }, open, (door, context) =>
        content.volumeContent(volume, wish, door, context),
      );
    });
  }

  snapshot(id: string, wish: ContentWish, open: ContentDoor, caller: Caller) {
    return this.#read("snapshotContent", id, wish, caller, (own) => {
      const snapshot = usable(this.#service.snapshot(own));
      const content = this.#abilities(wish);
      const { id: snapshotID, volumeID } = snapshot;
      return this.#reading({ snapshotID, volumeID }, open, (door, context) =>
        content.snapshotContent(snapshot, wish, door, context),
      );
    });
  }

  #read(
    operation: string,
    rawID: string,
    { formats, have }: ContentWish,
    caller: Caller,
    plan: (id: string) => Work<ContentSummary>,
  ): Promise<ContentSummary> {
    const { name } = this.#service;
    const id = this.#service.normalized(rawID);
    const request = { id, formats, have };
    const lock = lockKeyOf(name, id);
    const prepare = () => ({ work: plan(id) });
    return this.#operations.run({ operation, service: name, lock, request, prepare }, caller);
  }

  #abilities({ formats }: Pick<ContentWish, "formats">) {
    const { content } = this.#service.driver;
    if (content === undefined) throw unable("give or take the content of volumes as streams");
    const isKnown = formats.length === 0 || formats.some((one) => content.formats.includes(one));
    if (isKnown) return content;
    throw new StorageError(
      "unimplemented",
      `service ${this.#service.name} has no content as ${formats.join(" or ")}; it gives and takes ${content.formats.join(", ")}`,
      { formats: content.formats.join(",") },
    );
  }

  #reading(
    subject: Work<never>["subject"],
    open: ContentDoor,
    read: (open: ContentDoor, context: OpContext) => Promise<void>,
  ): Work<ContentSummary> {
    return {
      subject,
      run: async (context) => {
        let meter: MeteredBytes | undefined;
        let sink: Writable | undefined;
        try {
          await read((about) => {
            const { progress } = context;
            meter = new MeteredBytes({ total: about.lengthBytes, progress });
            sink = open(about);
            meter.on("error", (error) => sink?.destroy(error));
            sink.on("error", (error) => meter?.destroy(error));
            return meter.pipe(sink) && meter;
          }, quiet(context));
          if (meter === undefined || sink === undefined) throw new Error("no content was given");
          meter.end();
          await finished(sink);
          return meter.summary;
        } catch (error) {
          meter?.destroy();
          throw error;
        }
      },
      apply: () => {},
      takeBack: async () => {},
    };
  }

  /** Makes a volume of what comes. Nothing is left of it when the content breaks off or is another. */
  upload(upload: Upload, caller: Caller): Promise<VolumeRecord> {
    const { bytes, sha256: _asked, ...request } = upload;
    const { name } = this.#service;
    const operation = "volumeUpload";
    return this.#names
      .taking("volume", upload.name, caller, (takeName) =>
        this.#operations.run(
          {
            operation,
            service: name,
            request,
            prepare: async () => {
              this.#abilities({ formats: [upload.format] });
              await this.#checkRoom(upload);
              takeName();
              return { work: this.#creations.volumeFromContent(upload, this.#carry(upload)) };
            },
          },
          caller,
        ),
      )
      .finally(() => bytes.destroy());
  }

  #carry(upload: Upload): Parameters<Creations["volumeFromContent"]>[1] {
    const { format, bytes, lengthBytes, contentID, parentID } = upload;
    return async (take, volume, context) => {
      const meter = new MeteredBytes({
        total: lengthBytes,
        progress: context.progress,
        check: (count) => checkSize(count, upload, volume),
        checkEnd: (summary) => checkDigest(summary, upload.sha256()),
      });
      bytes.on("error", (error) => meter.destroy(error));
      // The driver may not have begun to read; it is told when it does.
      meter.on("error", () => {});
      const content: ContentIn = {
        format,
        bytes: bytes.pipe(meter),
        isSizeGiven: (upload.sizeBytes ?? 0) > 0,
        ...(contentID !== undefined && { contentID }),
        ...(parentID !== undefined && { parentID }),
      };
      try {
        const made = await take(content);
        // Its end is where it is compared with its digest: nobody may take less.
        if (!meter.readableEnded) throw new Error("the content was not read to its end");
        return made;
      } catch (error) {
        throw await this.#explained(error);
      } finally {
        meter.destroy();
      }
    };
  }

  /** A raw disk may have holes, which take nothing. */
  async #checkRoom({ format, lengthBytes }: Upload): Promise<void> {
    if (lengthBytes === undefined || format === "raw") return;
    const free = await this.#freeBytes();
    if (free === undefined || lengthBytes <= free) return;
    throw new StorageError(
      "resource-exhausted",
      `the content has ${formatSize(lengthBytes)}, and service ${this.#service.name} has ${formatSize(free)} free`,
      { lengthBytes, freeBytes: free },
    );
  }

  async #freeBytes(): Promise<number | undefined> {
    const context = this.#operations.context(this.#log, AbortSignal.timeout(30_000));
    return (await this.#service.driver.capacity?.(context))?.freeBytes;
  }

  /** What is full says how much is free. */
  async #explained(error: unknown): Promise<unknown> {
    if (!(error instanceof StorageError) || error.code !== "resource-exhausted") return error;
    if (error.data["freeBytes"] !== undefined) return error;
    const freeBytes = await this.#freeBytes().catch(() => undefined);
    if (freeBytes === undefined) return error;
    return new StorageError(
      error.code,
      `${error.message} (${formatSize(freeBytes)} were free when nothing was left of it)`,
      { ...error.data, freeBytes },
      { cause: error },
    );
  }

  // ---- what has changed

  /** @param since a snapshot of the same volume; without it all that has data */
  volumeChanges(id: string, since: string | undefined, signal: AbortSignal): ChangeStream {
    const volume = usable(this.#service.volume(this.#service.normalized(id)));
    const { changes } = this.#service.driver;
    if (changes === undefined) throw unable("tell what has changed in a volume");
    if (volume.attachments.length > 0)
      throw heldByOther(volume, "compare", "compare a snapshot of it with the earlier one");
    const base = this.#baseOf(volume.id, since);
    return {
      sizeBytes: volume.sizeBytes,
      extents: this.#locked(volume.id, signal, (context) =>
        changes.volumeChanges(volume, base, context),
      ),
    };
  }

  snapshotChanges(id: string, since: string | undefined, signal: AbortSignal): ChangeStream {
    const snapshot = usable(this.#service.snapshot(this.#service.normalized(id)));
    const { changes } = this.#service.driver;
    if (changes === undefined) throw unable("tell what has changed in a snapshot");
    const base = this.#baseOf(snapshot.volumeID, since);
    return {
      sizeBytes: snapshot.sizeBytes,
      extents: this.#locked(snapshot.id, signal, (context) =>
        changes.snapshotChanges(snapshot, base, context),
      ),
    };
  }

  #baseOf(volumeID: string, since: string | undefined): SnapshotRecord | undefined {
    if (since === undefined) return undefined;
    const base = usable(this.#service.snapshot(this.#service.normalized(since)));
    if (base.volumeID === volumeID) return base;
    throw new StorageError(
      "failed-precondition",
      `snapshot ${base.id} is one of volume ${base.volumeID}, not of ${volumeID}: what differs between two volumes is not told`,
      { snapshotID: base.id, volumeID },
    );
  }

  /** Under the object's lock, so that nobody removes or writes it meanwhile. */
  async *#locked<T>(
    id: string,
    signal: AbortSignal,
    read: (context: OpContext) => AsyncIterable<T>,
  ): AsyncGenerator<T, void> {
    const { locks } = this.#operations;
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    await new Promise<void>((resolve) => {
      void locks.run(lockKeyOf(this.#service.name, id), () => {
        resolve();
        return held;
      });
    });
    try {
      yield* read(this.#operations.context(this.#log, signal));
    } finally {
      release();
    }
  }
}

/** The stream's own progress is what is told. */
function quiet(context: OpContext): OpContext {
  return { ...context, progress: () => {} };
}

/** Of a disk each byte is one of its bytes. */
function checkSize(count: number, { format, sizeBytes }: Upload, { id }: VolumeRecord): void {
  if (format !== "raw" || sizeBytes === undefined || sizeBytes === 0 || count <= sizeBytes) return;
  throw new StorageError(
    "invalid-argument",
    `the content has more than the ${formatSize(sizeBytes)} that volume ${id} would have; ask for a larger one`,
    { sizeBytes },
  );
}

function checkDigest({ bytes, sha256 }: ContentSummary, stated: string | undefined): void {
  if (stated === sha256) return;
  const why =
    stated === undefined
      ? "no SHA-256 of it was stated, neither before it nor after it (Content-Digest)"
      : `its SHA-256 is ${sha256}, and should be ${stated}`;
  throw new StorageError("invalid-argument", `the content of ${bytes} bytes was refused: ${why}`, {
    bytes,
    sha256,
  });
}
