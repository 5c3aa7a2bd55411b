/** Plain folders as streams: archives of tar. */
import type { OpContext } from "../../core/driver.js";
import type { FolderStreams, Purpose } from "../folders/backing.js";
import { checkFits } from "../folders/fitting.js";
import { syncFileSystem } from "./sync.js";
import { packFolder, unpackInto } from "./tar.js";

export function tarStreams(
  make: (path: string, purpose: Purpose, context: OpContext) => Promise<void>,
): FolderStreams {
  return {
    formats: ["tar"],
    canReadHeld: false,
    send: (path, _what, _wish, open, context) => packFolder(path, open, context),
    async receive(to, purpose, { bytes }, context) {
      await make(to, purpose, context);
      await unpackInto(to, bytes, context);
      await checkFits(to, purpose, context);
      await syncFileSystem(context, to);
    },
  };
}
