/**
 * What the command line stands on: streams, environment, interrupts. A test hands in its own; the process's own is in
 * main.ts. Nothing else in src/cli touches `process`.
 */

export interface Output {
  write(text: string): boolean
  once(event: 'drain' | 'close', listener: () => void): unknown
  off(event: 'drain' | 'close', listener: () => void): unknown
  readonly isTTY?: boolean
  readonly columns?: number
  /** True once the reader has gone (a closed pipe). */
  readonly destroyed?: boolean
}

export interface Io {
  readonly stdout: Output
  /** A real stream when it is a terminal: the progress bar moves its cursor. */
  readonly stderr: Output
  readonly env: Readonly<Record<string, string | undefined>>
  /** Absolute: what a file named on the command line is relative to. Left out: the process's own folder, and names stay as they were given. */
  readonly cwd?: string
  /**
   * Calls `stop` at Ctrl-C or SIGTERM, when stdout's reader goes away, with the error when stdout cannot be written, and when the
   * owner that runs this for another process closes its store; returns how to stop listening.
   */
  onInterrupt(stop: (why: 'interrupt' | 'closed-pipe' | 'owner-closing' | Error) => void): () => void
}

/** Writes and waits while the reader is slower than we are, so that a long log does not pile up in memory. */
export async function writeOut(output: Output, text: string): Promise<void> {
  if (output.destroyed === true || output.write(text)) return
  await new Promise<void>((resolve) => {
    const done = (): void => {
      output.off('drain', done)
      output.off('close', done)
      resolve()
    }
    output.once('drain', done)
    output.once('close', done)
  })
}
