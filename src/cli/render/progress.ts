/** A progress bar on stderr, only where that is a terminal: scripts and pipes get nothing. */
import { SingleBar } from 'cli-progress'
import type { Output } from '../io.ts'

export interface Progress {
  /** `done` of `total`, in any unit; `note` stands behind the bar. */
  update(done: number, total: number, note?: string): void
  stop(): void
}

const SILENT: Progress = { update: () => {}, stop: () => {} }

export function progressBar(output: Output, label: string): Progress {
  if (output.isTTY !== true) return SILENT
  const bar = new SingleBar({
    stream: output as unknown as NodeJS.WritableStream,
    format: `${label} {bar} {percentage} % {note}`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 30,
    clearOnComplete: true,
    gracefulExit: false,
    fps: 10,
  })
  let started = false
  return {
    update(done, total, note = '') {
      if (!started) bar.start(Math.max(total, 1), 0, { note })
      started = true
      bar.setTotal(Math.max(total, 1))
      bar.update(Math.min(done, Math.max(total, 1)), { note })
    },
    stop() {
      if (!started) return
      bar.stop()
      // Whatever was written between (a word about Ctrl-C) pushed a copy of the bar down: nothing of it stays.
      output.write('\r\u001b[J')
    },
  }
}
