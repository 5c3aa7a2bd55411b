/** Where subvolumes stand that reports name by their paths in the file system. */
import { mountOf, readMounts } from "../../core/mounts.js";

/** Tells where a path in the file system of `folder` stands on this host; undefined when that is not below it. */
export function placesBelow(folder: string): (inFileSystem: string) => string | undefined {
  const mount = mountOf(readMounts(), folder);
  if (mount === undefined) return () => undefined;
  const top = mount.root === "/" ? "/" : `${mount.root}/`;
  const mountPoint = mount.mountPoint === "/" ? "" : mount.mountPoint;
  return (inFileSystem) => {
    const path = `/${inFileSystem}`;
    if (!path.startsWith(top)) return undefined;
    const place = `${mountPoint}/${path.slice(top.length)}`;
    return place.startsWith(`${folder}/`) ? place : undefined;
  };
}
