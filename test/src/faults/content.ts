/** Content as streams, as the fault run tries it. */
import { createHash } from "node:crypto";
import { PassThrough, Readable, Writable } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { ContentFormat } from "@libstorage/model";
import type { StorageService } from "@libstorage/server";
import type { Operation } from "./operations.js";
import { caller } from "./world.js";

/** The whole content of a volume. */
export async function readAll(service: StorageService, volumeID: string): Promise<Buffer> {
  const through = new PassThrough();
  const reading = buffer(through);
  await service.content.volume(volumeID, { formats: [], have: [] }, () => through, caller());
  return reading;
}

/** @param content is asked for when it is needed */
export const contentOperations = (
  volumeID: string,
  format: ContentFormat,
  content: () => Buffer,
): readonly Operation[] => [
  {
    name: "upload",
    run: (service, who) => {
      const bytes = content();
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      const upload = { name: "new", fields: {}, format, sha256: () => sha256 };
      return service.content.upload({ ...upload, bytes: Readable.from([bytes]) }, who);
    },
  },
  {
    name: "download",
    run: (service, who) => {
      const sink = (): Writable => new Writable({ write: (_chunk, _encoding, done) => done() });
      return service.content.volume(volumeID, { formats: [], have: [] }, sink, who);
    },
  },
];
