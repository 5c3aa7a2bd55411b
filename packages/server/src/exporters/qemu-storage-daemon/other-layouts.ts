/** Daemons that have volumes by another `daemonFor` than what counts now. */
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import { LAYOUTS } from "./layout.js";
import type { Layout } from "./layout.js";
import { pidIn } from "./process.js";

/** @throws {StorageError} while a daemon runs that would have the volume with another `daemonFor` */
export function needNoOther(parent: string, own: Layout, volumeID: string): void {
  for (const layout of Object.values(LAYOUTS)) {
    const pid = layout === own ? undefined : pidIn(join(parent, layout.folderOf(volumeID)));
    if (pid === undefined) continue;
    throw new StorageError(
      "failed-precondition",
      `the image of volume ${volumeID} may be open in the storage daemon ${pid}, which is of another "daemonFor" and could not be ended when the server started; restart the server, or end that process`,
      { volumeID, pid },
    );
  }
}
