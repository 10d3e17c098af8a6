//! What is stored of custom resources, in the version that a client asked for: what only a webhook can convert is sent
//! to it, many objects in one question.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::Value;
use skeg_core::Rng;
use skeg_core::api::Status;
use skeg_core::apiserver::Converted;
use tokio::sync::oneshot;

use super::ask::{Answer, Event, Events, Inbound, ToCluster};
use super::handler::gone;
use super::selection::Selected;
use super::served::Resource;
use super::service::random_number;

/// How many events of a watch are converted at once.
const AT_ONCE: usize = 500;

/// Converts what an answer has to the version of its resource.
pub async fn convert_answer(cluster: &ToCluster, resource: &Resource, answer: Answer) -> Result<Answer, Status> {
    if resource.conversion().is_none() {
        return Ok(answer);
    }
    match answer {
        Answer::Object(object) => {
            let mut made = convert(cluster, resource, false, vec![object]).await?;
            Ok(Answer::Object(made.remove(0)))
        }
        Answer::List { items, rv, continue_from, remaining } => {
            let items = convert(cluster, resource, true, items).await?;
            Ok(Answer::List { items, rv, continue_from, remaining })
        }
        other @ (Answer::Text { .. } | Answer::Done | Answer::Watch(_)) => Ok(other),
    }
}

/// Objects as they are stored, in the version of their resource.
async fn convert(
    cluster: &ToCluster,
    resource: &Resource,
    is_list: bool,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let Some(conversion) = resource.conversion() else { return Ok(objects) };
    let (wanted, kind) = (resource.info.api_version(), &*resource.info.kind);
    let is_due = |object: &Value| object["kind"] == kind && resource.is_other_version(object);
    let due: Vec<usize> = (0..objects.len()).filter(|index| is_due(&objects[*index])).collect();
    if due.is_empty() {
        return Ok(objects);
    }
    let originals: Vec<Value> = due.iter().map(|index| objects[*index].take()).collect();
    let what = if is_list { Converted::list(&wanted, kind) } else { Converted::each(&originals) };
    let seed = random_number().map_err(Status::internal)?;
    let uid = Rng::stream(seed, "conversion", 0).uuid();
    let question = conversion.question(&originals, &wanted, &uid)?;
    let (sender, answer) = oneshot::channel();
    cluster.send(Inbound::Consult(question, sender)).map_err(|_| gone())?;
    let answered = answer.await.map_err(|_| gone())?;
    let made = conversion.answer(&what, &originals, &wanted, &uid, answered)?;
    let mut made = resource.pruned(made).into_iter();
    due.into_iter().for_each(|index| objects[index] = made.next().expect("there are as many as were asked about"));
    Ok(objects)
}

/// The events of a watch, in the version of its resource.
pub enum Source {
    /// They are in that version.
    Plain(Events),
    /// They have to be converted.
    Converted(Box<Converting>),
}

/// The conversion of events, which takes a while.
type Batch = Pin<Box<dyn Future<Output = Result<Vec<Event>, Status>> + Send>>;

/// Events on their way through a webhook.
pub struct Converting {
    events: Events,
    resource: Arc<Resource>,
    cluster: ToCluster,
    /// What the watch selects of them by fields, if it does.
    selected: Option<Selected>,
    under_way: Option<Batch>,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Source {
    /// The events of a watch of a resource.
    pub fn new(events: Events, resource: &Arc<Resource>, selected: Option<Selected>, cluster: ToCluster) -> Source {
        if resource.conversion().is_none() {
            return Source::Plain(events);
        }
        let (under_way, ready, resource) = (None, VecDeque::new(), Arc::clone(resource));
        Source::Converted(Box::new(Converting { events, resource, cluster, selected, under_way, ready, ended: false }))
    }

    /// The number of the watch.
    pub fn id(&self) -> u64 {
        match self {
            Source::Plain(events) => events.id,
            Source::Converted(converting) => converting.events.id,
        }
    }

    /// Polls for the next event; `None` if the watch has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        match self {
            Source::Plain(events) => events.poll(cx),
            Source::Converted(converting) => converting.poll(cx),
        }
    }
}

impl Converting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if let Some(batch) = &mut self.under_way {
                match batch.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(events)) => match &mut self.selected {
                        Some(selected) => self.ready.extend(events.into_iter().filter_map(|event| selected.see(event))),
                        None => self.ready.extend(events),
                    },
                    Poll::Ready(Err(status)) => {
                        self.ended = true;
                        self.ready.push_back(Event::Value("ERROR", Arc::new(status.to_json())));
                    }
                }
                self.under_way = None;
                continue;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let (batch, has_ended) = self.next_batch(cx);
            self.ended = has_ended;
            match batch.is_empty() {
                true if has_ended => return Poll::Ready(None),
                true => return Poll::Pending,
                false => {
                    let (cluster, resource) = (self.cluster.clone(), Arc::clone(&self.resource));
                    self.under_way = Some(Box::pin(convert_events(cluster, resource, batch)));
                }
            }
        }
    }

    /// The events that wait, and whether no more follow.
    fn next_batch(&mut self, cx: &mut Context<'_>) -> (Vec<Event>, bool) {
        let mut batch = Vec::new();
        while batch.len() < AT_ONCE {
            match self.events.poll(cx) {
                Poll::Ready(Some(event)) => batch.push(event),
                Poll::Ready(None) => return (batch, true),
                Poll::Pending => break,
            }
        }
        (batch, false)
    }
}

async fn convert_events(cluster: ToCluster, resource: Arc<Resource>, batch: Vec<Event>) -> Result<Vec<Event>, Status> {
    let mut objects = Vec::new();
    for event in &batch {
        match event {
            Event::Value(_, object) => objects.push(Value::clone(object)),
            Event::Line(_) => unreachable!("what is to be converted is not encoded"),
        }
    }
    let made = convert(&cluster, &resource, false, objects).await?;
    let pairs = batch.into_iter().zip(made);
    Ok(pairs
        .map(|(event, made)| match event {
            Event::Value(type_, _) => Event::Value(type_, Arc::new(made)),
            line @ Event::Line(_) => line,
        })
        .collect())
}
