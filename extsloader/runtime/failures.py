"""Which event says that an order failed: an order without an answer would hang its subject."""

from extsloader.model import effects as fx
from extsloader.model import events as ev
from extsloader.model.effects import Effect
from extsloader.model.events import Event
from extsloader.model.reasons import Code, Problem


def answer(effect: Effect, problem: Problem) -> Event:
    """The event that ends the effect badly."""
    match effect:
        case fx.ListSources(provider):
            return ev.ListingFailed(provider, problem)
        case fx.Probe(source) | fx.Verify(source):
            return ev.Refused(source.id, problem)
        case fx.MountImage(image):
            return ev.ImageFailed(image.digest, problem)
        case fx.UnmountImage(digest):
            return ev.ImageUnmounted(digest, problem)
        case fx.CheckImage(digest):
            return ev.ImageChecked(digest, problem)
        case fx.MeasureImage(digest):
            return ev.ImageMeasured(digest, problem)
        case fx.ReadLoad():
            return ev.LoadRead(None)
        case _:
            return _answer_service(effect, problem)


def _answer_service(effect: Effect, problem: Problem) -> Event:
    match effect:
        case fx.CreateService(plan, run):
            return ev.ServiceFailed(plan.service, run, problem)
        case fx.StartService(service, run):
            return ev.ServiceFailed(service, run, problem)
        case fx.CheckReady(service, run):
            hopeless = problem.code is Code.READINESS
            return ev.ServiceChecked(
                service, run, ready=False, detail=problem.message, hopeless=hopeless
            )
        case fx.RemoveService(plan, run):
            return ev.ServiceRemoved(plan.service, run, problem)
        case fx.LoadSettings():
            return ev.SettingsRefused((problem.message,))
        case fx.SaveHistory():
            return ev.HistorySaved(problem)
        case _:
            return ev.EffectFailed(problem)
