/** A progress bar on stderr, only where that is a terminal: scripts and pipes get nothing. */
import { SingleBar } from 'cli-progress'
import type { Output } from '../io.ts'
import { duration } from './text.ts'

export interface Progress {
  /** `done` of `total`, in any unit; `note` stands behind the bar. */
  update(done: number, total: number, note?: string): void
  stop(): void
}

const ESTIMATE_AFTER_MS = 1000

const SILENT: Progress = { update: () => {}, stop: () => {} }

export function progressBar(output: Output, label: string): Progress {
  if (output.isTTY !== true) return SILENT
  const bar = new SingleBar({
    stream: output as unknown as NodeJS.WritableStream,
    format: `${label} {bar} {percentage} %{left} {note}`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 30,
    clearOnComplete: true,
    gracefulExit: false,
    fps: 10,
  })
  let began: number | null = null
  return {
    update(done, total, note = '') {
      const all = Math.max(total, 1)
      const now = performance.now()
      if (began === null) bar.start(all, 0, { note, left: '' })
      began ??= now
      bar.setTotal(all)
      bar.update(Math.min(done, all), { note, left: estimate(now - began, done, all) })
    },
    stop() {
      if (began === null) return
      bar.stop()
      // Whatever was written between (a word about Ctrl-C) pushed a copy of the bar down: nothing of it stays.
      output.write('\r\u001b[J')
    },
  }
}

/** What is left, if it goes on as it went: told once there is something to go by. */
function estimate(elapsed: number, done: number, total: number): string {
  if (elapsed < ESTIMATE_AFTER_MS || done <= 0 || done >= total) return ''
  return `, ${duration((elapsed / done) * (total - done))} left`
}
