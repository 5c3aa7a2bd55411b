/** Which plugins this host's configuration asks for: `modules.NAME`, section 20 of the contract. */
import { parseAddress, StorageError } from "@libstorage/model";
import type { Address } from "@libstorage/model";
import { SettingReader } from "../setting-reader.js";
import { readSettings, wrong } from "../settings.js";
import type { ClientSettings, Configuration } from "../settings.js";

export interface PluginModule {
  /** By which the container runtime knows it. */
  readonly name: string;
  readonly address: Address;
  readonly settings: ClientSettings;
  /** Looks up the module's own keys first. */
  readonly reader: SettingReader;
}

export interface ModuleRequest {
  readonly type: "docker" | "csi";
  /** Only these; all of the type when empty. */
  readonly names: readonly string[];
  /** The module that there is when none is configured. */
  readonly fallback: string;
  readonly addressOf: (name: string) => string;
  /** In place of what is configured. */
  readonly listen?: string;
}

/** A name becomes a file name and a part of a path. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
const PLACES = ["rexray.modules", "libstorage.client.modules", "modules"];

function configured({ file }: Configuration): readonly string[] {
  const names = PLACES.flatMap((place) => file.names(place));
  return [...new Map(names.map((name) => [name.toLowerCase(), name])).values()];
}

/** Only what stands in the module itself counts, not a key of the same name further out. */
function ownText({ layers, file }: Configuration, name: string, key: string): string | undefined {
  for (const place of PLACES)
    for (const layer of [...layers, file]) {
      const found = layer.find(`${place}.${name}.${key}`.toLowerCase());
      if (found !== undefined) return String(found.value);
    }
  return undefined;
}

function isOfType(configuration: Configuration, name: string, type: string): boolean {
  const own = ownText(configuration, name, "type")?.toLowerCase();
  const disabled = ownText(configuration, name, "disabled")?.toLowerCase();
  return own === type && !["true", "1", "yes", "on"].includes(disabled ?? "");
}

/** @throws {StorageError} `invalid-argument` with every problem of the configuration */
export function readModules(
  configuration: Configuration,
  { type, names, fallback, addressOf, listen }: ModuleRequest,
): readonly PluginModule[] {
  const there = configured(configuration).filter((name) => isOfType(configuration, name, type));
  const chosen = names.length > 0 ? names : there.length > 0 ? there : [fallback];
  for (const name of chosen) {
    if (!NAME.test(name))
      throw wrong([{ path: `modules.${name}`, message: "is no name for a plugin" }]);
    const isKnown = there.some((one) => one.toLowerCase() === name.toLowerCase());
    if (!isKnown && (name !== fallback || there.length > 0))
      throw new StorageError(
        "invalid-argument",
        `there is no plugin ${name} of type ${type} in the configuration (there are: ${there.join(", ") || "none"})`,
        { name },
      );
  }
  return chosen.map((name) => {
    const isConfigured = there.some((one) => one.toLowerCase() === name.toLowerCase());
    const settings = readSettings(configuration, isConfigured ? name : undefined);
    const host = isConfigured ? ownText(configuration, name, "host") : undefined;
    const reader = new SettingReader(settings.config);
    return { name, address: parseAddress(listen ?? host ?? addressOf(name)), settings, reader };
  });
}
