/** Where a program of the application token keeps its files, section 15.4 of the contract. */
import type { Environment } from "./scopes.js";

export interface AppFolders {
  /** `libstorage`, or what `LIBSTORAGE_APPTOKEN` says. */
  readonly token: string;
  readonly etc: string;
  readonly tls: string;
  readonly lib: string;
  readonly log: string;
  readonly run: string;
  /** `~/.TOKEN`, for the user's own known hosts; absent without a home. */
  readonly user?: string;
}

export interface AppUser {
  readonly isRoot: boolean;
  /** From the user database, not from `HOME`. */
  readonly home?: string;
}

/**
 * @param isFolder whether a folder exists: a single folder's variable (`LIBSTORAGE_HOME_ETC`) counts only then
 */
export function appFolders(
  env: Environment,
  user: AppUser,
  isFolder: (path: string) => boolean,
): AppFolders {
  const token = env["LIBSTORAGE_APPTOKEN"]?.trim().toLowerCase() || "libstorage";
  const names = [...new Set([token.toUpperCase(), "LIBSTORAGE", "REXRAY"])];
  const variable = (end: string): string | undefined =>
    names
      .map((name) => env[`${name}_HOME${end}`])
      .find((value) => value !== undefined && value !== "");
  const own = user.home === undefined ? undefined : `${user.home}/.${token}`;
  const home = (variable("") ?? (user.isRoot ? "" : (own ?? `/tmp/.${token}`))).replace(/\/+$/, "");
  // Only the system's own folders carry the token: below a home it would say the same twice.
  const end = home === "" ? `/${token}` : "";
  const single = (suffix: string, fallback: string): string => {
    const folder = variable(suffix);
    return folder !== undefined && isFolder(folder) ? folder : fallback;
  };
  const etc = single("_ETC", `${home}/etc${end}`);
  return {
    token,
    etc,
    tls: single("_ETC_TLS", `${etc}/tls`),
    lib: single("_LIB", `${home}/var/lib${end}`),
    log: single("_LOG", `${home}/var/log${end}`),
    run: single("_RUN", `${home}/var/run${end}`),
    ...(own !== undefined && { user: own }),
  };
}
