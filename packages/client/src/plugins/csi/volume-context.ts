/** What orchestrators say of a volume beside its ID: `volume_context`. */
import type { TextMap } from "./messages.js";

/**
 * The plugin gives its volumes none, so a key that looks like the plugin's own says of another volume, or of
 * another plugin. Keys under a prefix of somebody else are what orchestrators and their parts note for
 * themselves, such as `storage.kubernetes.io/csiProvisionerIdentity`, which every volume of Kubernetes has.
 * @param driverName the plugin's own prefix
 * @returns why a context cannot be that of a volume of this plugin, or undefined
 */
export function foreignContext(context: TextMap, driverName: string): string | undefined {
  const own = Object.keys(context).find((key) => {
    const [prefix, name] = key.split("/", 2);
    return name === undefined || prefix?.toLowerCase() === driverName.toLowerCase();
  });
  if (own === undefined) return undefined;
  return `volume_context has the key ${JSON.stringify(own)}, and volumes of this plugin have no context: leave it out (of a PersistentVolume: spec.csi.volumeAttributes)`;
}
